"""Runs one of our tasks through lm-evaluation-harness's own evaluation loop: our figures are its figures, item by item.

The definitions are in `tasks/`; the score is the mean over items of the metric that the catalogue names, as the harness computes
it. The one difference: an item with a prompt too long for the model counts as wrong (`room.py`), as does one of whose options
the model can write none; the harness cuts the prompt, and stops at such an option.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ultrafuser.errors import UserError
from ultrafuser.evaluate.catalogue import TaskInfo
from ultrafuser.evaluate.room import Room
from ultrafuser.evaluate.score import TaskScore, mean_and_error, prompts_hash
from ultrafuser.evaluate.settings import EvalSettings
from ultrafuser.evaluate.tasks import TASKS_DIRECTORY

if TYPE_CHECKING:
    from ultrafuser.evaluate.lm import UltraFuserLM

Sample = Mapping[str, Any]


def require_harness() -> None:
    """Raise `UserError` unless lm-evaluation-harness is installed."""
    if importlib.util.find_spec("lm_eval") is None:
        raise UserError("this needs lm-evaluation-harness: pip install 'ultrafuser[eval]'")


def run_task(lm: UltraFuserLM, task: TaskInfo, settings: EvalSettings) -> TaskScore:
    """The score of ``lm`` on a harness task. Raises `UserError` for missing data and whatever the harness raises."""
    started = time.monotonic()
    lm.start(task.title)
    samples = harness_samples(lm, task, settings)
    records = [_record(sample, task.metric, lm.room) for sample in samples]
    value, error = mean_and_error([record["score"] for record in records])
    return TaskScore(
        task=task.name,
        value=value,
        standard_error=error,
        n=len(records),
        unparsed=round(sum(record["unparsed"] for record in records)),
        seconds=time.monotonic() - started,
        records=records,
        prompts_hash=prompts_hash(sample["arguments"] for sample in samples),
        notes=lm.room.notes(),
    )


def harness_samples(lm: UltraFuserLM, task: TaskInfo, settings: EvalSettings) -> list[Sample]:
    """The harness's per-item records (its ``log_samples``) of ``lm`` on ``task``, in the order of the items."""
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    from ultrafuser.evaluate.quiet import quiet

    with quiet():
        data = {"data_dir": None if settings.data_dir is None else str(settings.data_dir)}
        loaded = TaskManager(include_path=str(TASKS_DIRECTORY), include_defaults=False, metadata=data).load([task.harness_name])
        definition = loaded["tasks"][task.harness_name]
        if settings.max_new_tokens is not None and definition.OUTPUT_TYPE == "generate_until":
            definition.set_config("generation_kwargs", {"max_gen_toks": settings.max_new_tokens}, update=True)
        results = evaluate(lm, loaded, limit=settings.limit, bootstrap_iters=0, log_samples=True, apply_chat_template=True)
    return sorted(results["samples"][task.harness_name], key=lambda sample: sample["doc_id"])


def _record(sample: Sample, metric: str, room: Room) -> dict[str, Any]:
    """One item for our results: what was asked and answered, what was read out of it, and what it scored."""
    asked = [(prompt, more if isinstance(more, str) else "") for prompt, more in sample["arguments"]]
    left_out = sum(room.is_left_out(*one) for one in asked)
    wrong = left_out or room.unwritable.issuperset(asked)  # where no option can be written, the choice means nothing
    record = {
        "id": sample["doc"].get("id", sample["doc_id"]),
        "question": sample["doc"].get("prompt", ""),
        "prompt": _plain([prompt for prompt, _ in asked]),
        "answer": _plain([answers[0] for answers in sample["resps"]]),
        "read": _plain(sample["filtered_resps"]),
        "target": sample["target"],
        "score": 0.0 if wrong else float(sample[metric]),
        "unparsed": max(0.0, float(sample.get("unparsed", 0.0)) - left_out),  # what was not asked has no answer to be read
    }
    if any(option for _, option in asked):
        record["options"] = [option for _, option in asked]
    return record | ({"left_out": True} if left_out else {})


def _plain(values: Sequence[Any]) -> Any:
    """Most items ask one thing: then that one, else the list. Equal prompts of several options are one."""
    return values[0] if all(value == values[0] for value in values) and isinstance(values[0], (str, dict)) else list(values)
