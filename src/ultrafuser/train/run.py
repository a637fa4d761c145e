"""Trains a fused model in stages (paper, section 3).

While it runs, everything lies in ``OUT.work``: a directory per stage with its checkpoints, its metrics and, once it is done,
its result, from which the next stage is loaded. So the same command again goes on wherever the last one ended, however it
ended. ``OUT`` appears at the very end, complete, and ``OUT.work`` goes.
"""

from __future__ import annotations

import gc
import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console

import ultrafuser
from ultrafuser.data.conversations import Conversation, read_conversations
from ultrafuser.data.dataset import ConversationDataset, encode_dataset
from ultrafuser.data.domains import doubtful_domains
from ultrafuser.data.rows import local_path
from ultrafuser.decontaminate import warn_if_unchecked
from ultrafuser.errors import UserError, plural
from ultrafuser.io import FULL, new_directory, read_json, require_creatable, require_new, write_json, write_text
from ultrafuser.model.card import UNTRAINED
from ultrafuser.model.digest import model_digest
from ultrafuser.model.quantise import require_quantiser
from ultrafuser.model.sources import read_tokenizer
from ultrafuser.train.checkpoint import remove_checkpoints
from ultrafuser.train.claim import SETTINGS_FILE, claim, run_facts
from ultrafuser.train.fit import DEFAULT, stage_arguments, train_stage
from ultrafuser.train.load import load_model, require_fused
from ultrafuser.train.moves import moved_weights
from ultrafuser.train.processes import process_state
from ultrafuser.train.result import HISTORY, link_tree, write_result
from ultrafuser.train.stage import PAPER_STAGES, Stage, TrainSettings, check_stages
from ultrafuser.train.trainer import METRICS_FILE

__all__ = ["train", "train_stage"]
logger = logging.getLogger(__name__)
Data = str | Path | Sequence[str | Path] | Sequence[Conversation]


@dataclass(frozen=True)
class _Run:
    source: Path
    out: Path
    stages: list[Stage]  # those with steps
    settings: TrainSettings

    @property
    def work(self) -> Path:
        return self.out.with_name(f"{self.out.name}.work")

    def folder(self, stage: Stage) -> Path:
        """Work directory of a stage."""
        return self.work / f"{self.stages.index(stage) + 1}-{stage.name}"

    def result(self, stage: Stage) -> Path:
        """What a stage has made; exists only when it is done."""
        return self.folder(stage) / "model"

    @property
    def last_result(self) -> Path:
        return self.result(self.stages[-1])

    @property
    def kept(self) -> dict[Path, Path]:
        """The results of stages before the last that are to be kept, and where."""
        stages = self.stages[:-1] if self.settings.keep_stages else []
        return {self.result(stage): self.out.with_name(f"{self.out.name}-{stage.name}") for stage in stages}


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
        data: JSONL or Parquet files or hub data sets, or conversations. Files never checked for test data are warned of.
        domains: by default those found in the data, in order of appearance.

    Raises:
        UserError: a mistake in the arguments or the data; an unfinished run with other settings; training that has diverged;
            a full disk.
        KeyboardInterrupt: after Ctrl-C, once a checkpoint is saved.
    """
    run = _Run(Path(model_dir), Path(out), [stage for stage in stages if stage.steps], settings)
    main = process_state().is_main_process
    if not main:
        logging.getLogger("ultrafuser").setLevel(logging.ERROR)
    _check(run, stages, data, domains or ())
    tokenizer, dataset = _read_data(run, data, domains)
    for stage in run.stages:  # a mistake in the last stage is to be found now
        stage_arguments(dataset, stage, run.folder(stage), settings)
    facts = {"model": model_digest(run.source)} | run_facts(list(stages), dataset, settings)
    claim(run.work, facts, overwrite=settings.overwrite)
    try:
        source = run.source
        for stage in run.stages:
            if not run.result(stage).exists():
                _run_stage(run, source, tokenizer, dataset, stage)
            source = run.result(stage)
        if main:
            _publish(run)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UserError(f"{run.work}: the disk is full; free some space, then give the same command again to go on") from None
    process_state().wait_for_everyone()
    return run.out


def _check(run: _Run, stages: Sequence[Stage], data: Data, domains: Sequence[str]) -> None:
    """Find every mistake that can be found before anything long begins."""
    require_fused(run.source)
    check_stages(stages, run.settings)
    require_quantiser(run.settings.load_in)
    if repeated := [domain for domain, count in Counter(domains).items() if count > 1]:
        raise UserError(f"domain '{repeated[0]}' is given twice; give it once")
    _check_places(run, [run.source, *map(local_path, _sources(data))])


def _check_places(run: _Run, inputs: Sequence[Path]) -> None:
    """Nothing that is read may be replaced, nor be written into: a model's directory is copied whole."""
    mine, overwrite = run.work.exists(), run.settings.overwrite
    require_new(run.out, overwrite=overwrite, inputs=inputs)
    require_new(run.work, overwrite=True, inputs=inputs)  # `claim` says whose it is
    for folder in run.kept.values():
        require_new(folder, overwrite=overwrite or mine, inputs=inputs)  # if mine, it is this run that made it
    if run.out.resolve().is_relative_to(run.source.resolve()):
        raise UserError(f"{run.out}: lies in {run.source}, which is read from; choose another output")
    require_creatable(run.work)


def _read_data(run: _Run, data: Data, domains: Sequence[str] | None) -> tuple[Any, ConversationDataset]:
    tokenizer = read_tokenizer(run.source)
    conversations = _conversations(data, domains)
    if not conversations:
        raise UserError("no conversation to train on; give at least one")
    found = list(domains or dict.fromkeys(conversation.domain for conversation in conversations))
    length = min(run.settings.max_length, read_json(run.source / "config.json").get("max_position_embeddings") or 2**31)
    shown = run.settings.progress and process_state().is_main_process
    dataset = encode_dataset(conversations, tokenizer, domains=found, max_length=length, progress=shown)
    if dataset.complete:  # else it has been warned of
        _say(run, dataset.summary())
    reads = sum(stage.steps * stage.per_domain for stage in run.stages)
    for doubt in doubtful_domains(dataset.counts, reads, chosen=domains is not None):
        logger.warning(doubt)
    return tokenizer, dataset


def _sources(data: Data) -> list[str | Path]:
    """What ``data`` are read from; nothing for conversations."""
    items = [data] if isinstance(data, str | Path) else data
    return [item for item in items if not isinstance(item, Conversation)]


def _conversations(data: Data, domains: Sequence[str] | None) -> list[Conversation]:
    sources = _sources(data)
    if not sources:
        return list(data)  # type: ignore[arg-type]
    conversations = read_conversations(sources, domains=domains)
    warn_if_unchecked(sources)
    return conversations


def _run_stage(run: _Run, source: Path, tokenizer: Any, dataset: ConversationDataset, stage: Stage) -> None:
    """Train one stage from ``source`` and write its result; then its checkpoints have done their work."""
    folder, number = run.folder(stage), run.stages.index(stage)
    # Another order of the examples in every stage; the run's own claim has dealt with what is there already.
    settings = replace(run.settings, seed=run.settings.seed + number, overwrite=False)
    model = load_model(source, stage, settings)
    place = f"stage '{stage.name}' ({number + 1} of {len(run.stages)})"
    _say(run, f"{place}: {plural(stage.steps, 'step')} of {plural(stage.per_domain, 'example')} per domain")
    train_stage(model, tokenizer, dataset, stage, folder, settings)
    moved = moved_weights(model, stage)
    if process_state().is_main_process:
        write_result(source, moved, run.result(stage))
        remove_checkpoints(folder)
    process_state().wait_for_everyone()
    del model, moved
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _publish(run: _Run) -> None:
    for result, folder in run.kept.items():
        with new_directory(folder, overwrite=True) as staging:
            link_tree(result, staging)
    versions = {"ultrafuser": ultrafuser.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    with new_directory(run.out, overwrite=run.settings.overwrite) as staging:
        link_tree(run.last_result, staging)
        (staging / HISTORY).mkdir()
        write_text(staging / HISTORY / METRICS_FILE, _metrics(run.folder(stage) for stage in run.stages))
        _add_to_card(staging / "README.md", run)
        write_json(staging / HISTORY / SETTINGS_FILE, read_json(run.work / SETTINGS_FILE) | {"versions": versions})
    (run.work / SETTINGS_FILE).unlink()  # if this is killed now, no run goes on with the rest
    shutil.rmtree(run.work)


def _add_to_card(card: Path, run: _Run) -> None:
    """The model card says how the model was trained, and no longer that it was not."""
    text = card.read_text(encoding="utf-8").replace(UNTRAINED, "") if card.exists() else ""
    rows = [
        f"| {stage.name} | {stage.moves} | {stage.steps} | {stage.per_domain} | {stage.learning_rate:g}, {stage.schedule} |"
        for stage in run.stages
    ]
    table = ["| stage | moves | steps | examples per domain | learning rate |", "|---|---|---|---|---|", *rows]
    about = f"AdamW, seed {run.settings.seed}. Metrics and all settings: `{HISTORY}/`."
    write_text(card, "\n".join([text.rstrip(), "", "## Training", "", *table, "", about, ""]))


def _metrics(folders: Iterable[Path]) -> str:
    return "".join((folder / METRICS_FILE).read_text(encoding="utf-8") for folder in folders)


def _say(run: _Run, line: str) -> None:
    if run.settings.progress and process_state().is_main_process:
        Console(stderr=True).print(line, soft_wrap=True)
