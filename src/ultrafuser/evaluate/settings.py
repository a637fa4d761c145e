"""How models are to be judged: the options of ``ultrafuser eval``. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ultrafuser.errors import UserError

if TYPE_CHECKING:
    from ultrafuser.evaluate.judged.settings import JudgeSettings
    from ultrafuser.schema import LoadIn


@dataclass(frozen=True)
class EvalSettings:
    """Settings of an evaluation. Raises `UserError` for values that cannot be.

    Args:
        out: directory for the results; answers are kept there, so the same command again goes on.
        data_dir: local test data (`testsets.load_test_set`); None: from the hub.
        limit: only the first so many items of every task.
        seed: of everything random; the tasks here decode greedily.
        cot: ask every task that has one in its chain-of-thought variant.
        batch_size: prompts at once; halved as long as memory does not suffice.
        max_new_tokens: the longest answer, in place of each task's own limit.
        specialists: names of the rows that are the specialists; None: see `models.specialist_rows`.
        with_specialists: judge the specialists inside each fused model too, each as a model of its own.
        template: a chat template, by name or file, for models that have none.
        paper: show the paper's figures beside ours.
        judge: who judges AlpacaEval and MT-Bench.
        dtype: of the weights; ``auto``: as saved.
        device: ``auto``: the best there is.
        load_in: quantise the weights to ``"8bit"`` or ``"4bit"`` (bitsandbytes).
        overwrite: replace the results of another evaluation in ``out``.
    """

    out: Path
    data_dir: Path | None = None
    limit: int | None = None
    seed: int = 0
    cot: bool = False
    batch_size: int = 32
    max_new_tokens: int | None = None
    specialists: Sequence[str] | None = None
    with_specialists: bool = False
    template: str | None = None
    paper: bool = False
    judge: JudgeSettings | None = None
    dtype: str = "auto"
    device: str = "auto"
    load_in: LoadIn | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        for option, value in (("limit", self.limit), ("batch-size", self.batch_size), ("max-new-tokens", self.max_new_tokens)):
            if value is not None and value < 1:
                raise UserError(f"--{option} {value}: give 1 or more")
