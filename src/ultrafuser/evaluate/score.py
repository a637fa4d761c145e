"""What one model scored on one task: a value, how sure it is, and the records behind it. Needs no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ultrafuser.intervals import ratio_error


@dataclass
class TaskScore:
    """The score of one model on one task.

    Args:
        task: the task's name.
        value: the score: a share of 1 (accuracy, pass@1, win rate), or marks from 1 to 10 for MT-Bench.
        standard_error: of ``value``, over the items; NaN for a single item.
        n: how many items it is a mean of.
        unparsed: how many answers the task's extraction rule could not read: at most one an item, but of TruthfulQA, where
            every option is judged alone, one an option.
        seconds: wall-clock time it took, without what had been kept from an earlier run.
        records: one JSON object per item.
        prompts_hash: digest of everything the model was asked, in order.
        notes: sentences for the reader about what is unusual in this score.
    """

    task: str
    value: float
    standard_error: float
    n: int
    unparsed: int
    seconds: float
    records: list[dict[str, Any]] = field(default_factory=list)
    prompts_hash: str = ""
    notes: list[str] = field(default_factory=list)


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean of independent items and its standard error s / sqrt(n), as lm-evaluation-harness computes it (NaN for one item)."""
    return ratio_error(values, [1.0] * len(values))


def prompts_hash(prompts: Iterable[Any]) -> str:
    """Digest of JSON values: the prompts of a task in order, so that two runs can be seen to have asked the same."""
    digest = hashlib.sha256()
    for prompt in prompts:
        digest.update(json.dumps(prompt, ensure_ascii=False, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()[:16]
