"""Trains a fused model in stages (paper, section 3).

While it runs, everything lies in ``OUT.work`` (`places.py`): a directory per stage with its checkpoints, its metrics and, once it
is done, its result, from which the next stage is loaded. So the same command again goes on wherever the last one ended, however
it ended. ``OUT`` appears at the very end, complete (`publish.py`), and ``OUT.work`` goes.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from ultrafuser.data.conversations import Conversation, read_conversations
from ultrafuser.data.dataset import ConversationDataset, encode_dataset
from ultrafuser.data.domains import doubtful_domains
from ultrafuser.data.rows import local_path
from ultrafuser.decontaminate import warn_if_unchecked
from ultrafuser.errors import UserError, plural
from ultrafuser.io import full_disk_interrupts, make_directory, remove_directory, require_new_directory, user_path
from ultrafuser.lock import only_one
from ultrafuser.model.digest import model_digest
from ultrafuser.model.load import free_memory
from ultrafuser.model.quantise import require_quantiser
from ultrafuser.model.sources import open_fused, read_tokenizer
from ultrafuser.refused import called_plainly
from ultrafuser.schema import LARGEST_SEED, MANY
from ultrafuser.train.checkpoint import remove_checkpoints
from ultrafuser.train.claim import claim, decisive_facts
from ultrafuser.train.fit import DEFAULT, stage_arguments, train_stage
from ultrafuser.train.load import load_model
from ultrafuser.train.moves import moved_weights
from ultrafuser.train.places import Places
from ultrafuser.train.processes import any_process, process_state
from ultrafuser.train.publish import is_published, publish
from ultrafuser.train.result import write_result
from ultrafuser.train.stage import PAPER_STAGES, Stage, TrainSettings, check_stages

__all__ = ["train", "train_stage"]
logger = logging.getLogger(__name__)
Data = str | Path | Sequence[str | Path | Conversation]


@called_plainly
def train(
    model_dir: str | Path,
    data: Data,
    out: str | Path,
    *,
    stages: Sequence[Stage] = PAPER_STAGES,
    settings: TrainSettings = DEFAULT,
    domains: Sequence[str] | None = None,
) -> Path:
    """Train the fused model in ``model_dir`` on ``data`` and write the result, a complete fused checkpoint, to ``out``.

    A stage of 0 steps is skipped. With ``settings.keep_stages`` the results of the stages before the last are kept as
    ``out-<stage name>``. ``out/training`` holds the metrics and the settings. Called again after an interruption, with the same
    arguments, it goes on from the last checkpoint, on one process to bit-identical weights.

    Args:
        data: JSONL or Parquet files or hub data sets, or only conversations. Files never checked for test data are warned of.
        domains: by default those found in the data, in order of appearance.

    Raises:
        UserError: a mistake in the arguments or the data; an unfinished run with other settings, or anything else, in
            ``out.work``; another training that is going on there; training that has diverged; a full disk.
        KeyboardInterrupt: after Ctrl-C, once a checkpoint is saved.
    """
    places = Places(user_path(model_dir), user_path(out), [stage for stage in stages if stage.steps], settings.keep_stages)
    main = process_state().is_main_process
    if not main:
        logging.getLogger("ultrafuser").setLevel(logging.ERROR)
    config, _ = open_fused(places.source)
    _check(places, data, domains, stages, settings)
    max_length = min(settings.max_length, config.max_position_embeddings or MANY)
    tokenizer, dataset = _read_data(places, data, domains, settings, max_length)
    for stage in places.stages:  # a mistake in the last stage is to be found now
        stage_arguments(dataset, stage, places.folder(stage), settings)
    facts = {"model": model_digest(places.source)} | decisive_facts(list(stages), dataset, settings)
    with _alone(places), full_disk_interrupts(places.work):
        if is_published(places, facts):
            process_state().wait_for_everyone()
        else:
            require_new_directory(places.out, overwrite=settings.overwrite)
            claim(places.work, facts, overwrite=settings.overwrite)
            _run_stages(places, tokenizer, dataset, settings)
        if main:
            remove_directory(places.work)
    process_state().wait_for_everyone()
    return places.out


def _check(places: Places, data: Data, domains: Sequence[str] | None, stages: Sequence[Stage], settings: TrainSettings) -> None:
    """Find every mistake that can be found before anything long begins."""
    check_stages(stages, settings)
    require_quantiser(settings.load_in)
    if repeated := [domain for domain, count in Counter(domains or ()).items() if count > 1]:
        raise UserError(f"domain '{repeated[0]}' is given twice; give it once")
    places.require_usable(map(local_path, _sources(data)), overwrite=settings.overwrite)


def _read_data(
    places: Places, data: Data, domains: Sequence[str] | None, settings: TrainSettings, max_length: int
) -> tuple[Any, ConversationDataset]:
    tokenizer = read_tokenizer(places.source)
    conversations = _conversations(data, domains)
    if not conversations:
        raise UserError("no conversation to train on; give at least one")
    found = list(domains or dict.fromkeys(conversation.domain for conversation in conversations))
    shown = settings.progress and process_state().is_main_process
    dataset = encode_dataset(conversations, tokenizer, domains=found, max_length=max_length, progress=shown)
    if dataset.complete:  # else it has been warned of
        _say(dataset.summary(), settings)
    reads = sum(stage.steps * stage.per_domain for stage in places.stages)
    for doubt in doubtful_domains(dataset.counts, reads, chosen=domains is not None):
        logger.warning(doubt)
    return tokenizer, dataset


def _sources(data: Data) -> list[str | Path]:
    """What ``data`` are read from; nothing for conversations."""
    items = [data] if isinstance(data, str | Path) else data
    sources = [item for item in items if not isinstance(item, Conversation)]
    if sources and len(sources) < len(items):
        raise UserError(f"data: {sources[0]} stands beside conversations; give either the names of data or conversations")
    return sources


def _conversations(data: Data, domains: Sequence[str] | None) -> list[Conversation]:
    sources = _sources(data)
    if not sources:
        return list(data)  # type: ignore[arg-type]
    conversations = read_conversations(sources, domains=domains)
    warn_if_unchecked(sources)
    return conversations


@contextmanager
def _alone(places: Places) -> Iterator[None]:
    """No other training at this place. The main process sees to that, and if it cannot be all raise `UserError`."""
    state, mistake = process_state(), None
    with ExitStack() as stack:
        if state.is_main_process:
            try:
                make_directory(places.out.parent)
                stack.enter_context(only_one("training", places.out))
            except UserError as error:
                mistake = error
        if any_process(mistake is not None, state.device):
            raise mistake or UserError(f"{places.out}: the main process cannot have it")
        yield


def _run_stages(places: Places, tokenizer: Any, dataset: ConversationDataset, settings: TrainSettings) -> None:
    source = places.source
    for stage in places.stages:
        if not places.result(stage).exists():
            _run_stage(places, source, tokenizer, dataset, stage, settings)
        source = places.result(stage)
    if process_state().is_main_process:
        publish(places, settings)


def _run_stage(
    places: Places, source: Path, tokenizer: Any, dataset: ConversationDataset, stage: Stage, settings: TrainSettings
) -> None:
    """Train one stage from ``source`` and write its result; then its checkpoints have done their work."""
    folder, number = places.folder(stage), places.stages.index(stage)
    # Another order of the examples in every stage; the run's own claim has dealt with what is there already.
    settings = replace(settings, seed=(settings.seed + number) % (LARGEST_SEED + 1), overwrite=False)
    model = load_model(source, stage, settings)
    place = f"stage '{stage.name}' ({number + 1} of {len(places.stages)})"
    _say(f"{place}: {plural(stage.steps, 'step')} of {plural(stage.per_domain, 'example')} per domain", settings)
    train_stage(model, tokenizer, dataset, stage, folder, settings)
    moved = moved_weights(model, stage)
    if process_state().is_main_process:
        write_result(source, moved, places.result(stage))
        remove_checkpoints(folder)
    process_state().wait_for_everyone()
    del model, moved
    free_memory()


def _say(line: str, settings: TrainSettings) -> None:
    if settings.progress and process_state().is_main_process:
        Console(stderr=True).print(line, soft_wrap=True)
