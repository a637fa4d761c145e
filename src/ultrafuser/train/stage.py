"""What a training run is made of: stages and settings (paper, section 3; issue part "Two-stage training").

The paper trains in two stages because gradients through an untrained gate damage the specialists: first the gate alone,
400 steps with 64 examples of every domain per batch, then everything, about 5,000 steps with 32. AdamW, 2e-5, cosine.

Where the paper is silent we chose: no warm-up (AdamW's first steps are bounded by the learning rate, which is small), no
weight decay (it would pull the specialists away from what they were trained to), gradients clipped to norm 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ultrafuser.errors import UserError, did_you_mean

Moves = Literal["gate", "lora", "all"]
MOVES: tuple[Moves, ...] = ("gate", "lora", "all")
SCHEDULES = ("cosine", "linear", "constant", "constant_with_warmup", "cosine_with_restarts", "polynomial", "inverse_sqrt")


@dataclass(frozen=True)
class Stage:
    """One stage of training. A global batch holds ``per_domain`` examples of every domain.

    Args:
        name: names the stage in logs, directories and messages.
        moves: ``gate`` (specialists stay bitwise unchanged), ``lora`` (low-rank updates of the specialists' linear
            layers, merged at the end, and the whole gate) or ``all``.
        steps: optimiser steps; 0 skips the stage.
        per_domain: examples of every domain in a global batch, whatever the number of processes.
        schedule: a learning-rate schedule by its transformers name.
    """

    name: str
    moves: Moves
    steps: int
    per_domain: int
    learning_rate: float = 2e-5
    schedule: str = "cosine"
    warmup_steps: int = 0
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    lora_rank: int = 16
    lora_alpha: int = 32

    def __post_init__(self) -> None:
        if self.moves not in MOVES:
            raise UserError(f"stage '{self.name}': moves='{self.moves}' is not one of {', '.join(MOVES)}")
        if self.schedule not in SCHEDULES:
            hint = did_you_mean(self.schedule, SCHEDULES)
            raise UserError(f"stage '{self.name}': schedule='{self.schedule}' is not one of {', '.join(SCHEDULES)}{hint}")
        if "/" in self.name or not self.name:
            raise UserError(f"stage name {self.name!r} cannot name a directory")
        for field, least in (("steps", 0), ("per_domain", 1), ("warmup_steps", 0), ("lora_rank", 1), ("lora_alpha", 1)):
            if getattr(self, field) < least:
                raise UserError(f"stage '{self.name}': {field}={getattr(self, field)} must be at least {least}")
        for field, bound in (("learning_rate", "above 0"), ("max_grad_norm", "above 0"), ("weight_decay", "at least 0")):
            value = getattr(self, field)
            if not (0 < value < math.inf or (value == 0 and bound == "at least 0")):  # so that NaN is refused too
                raise UserError(f"stage '{self.name}': {field}={value} must be {bound} and finite")


PAPER_STAGES = (
    Stage("gate", moves="gate", steps=400, per_domain=64),
    Stage("joint", moves="all", steps=5000, per_domain=32),
)


@dataclass(frozen=True)
class TrainSettings:
    """Settings common to all stages.

    Args:
        seed: decides the order of the examples and every random number.
        max_length: conversations longer than this many tokens are cut at a turn boundary.
        load_in: ``"8bit"`` or ``"4bit"`` loads frozen specialists quantised (bitsandbytes); gate stages only.
        micro_batch_size: most examples in one forward pass of one process; the largest divisor that fits is taken.
        mixed_precision: ``"bf16"``, ``"no"``, or ``"auto"``: bf16 on a GPU that has it, else float32.
        gradient_checkpointing: compute activations again in the backward pass: less memory, about a third slower.
        save_every: optimiser steps between checkpoints; the newest ``keep_checkpoints`` are kept.
        keep_stages: also keep each stage's own result, beside the output, as ``OUT-<stage name>``.
        report_to: trackers known to transformers, such as ``("wandb",)`` or ``("tensorboard",)``.
        overwrite: replace an existing output, and an unfinished run made with other settings.
    """

    seed: int = 0
    max_length: int = 2048
    load_in: Literal["8bit", "4bit"] | None = None
    micro_batch_size: int = 8
    mixed_precision: Literal["auto", "bf16", "no"] = "auto"
    gradient_checkpointing: bool = False
    torch_compile: bool = False
    num_workers: int = 0
    log_every: int = 10
    save_every: int = 250
    keep_checkpoints: int = 2
    keep_stages: bool = False
    report_to: tuple[str, ...] = ()
    progress: bool = True
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.load_in not in ("8bit", "4bit", None):
            raise UserError(f"load_in='{self.load_in}' is not one of 8bit, 4bit")
        if self.mixed_precision not in ("auto", "bf16", "no"):
            raise UserError(f"mixed_precision='{self.mixed_precision}' is not one of auto, bf16, no")
        for field in ("max_length", "micro_batch_size", "log_every", "save_every", "keep_checkpoints"):
            if getattr(self, field) < 1:
                raise UserError(f"{field}={getattr(self, field)} must be at least 1")


# The settings that decide the trained weights: an unfinished run goes on only if they are what they were. The others change
# speed, memory or what is shown (the micro-batch moves the weights by rounding only).
DECISIVE_SETTINGS = ("seed", "max_length", "load_in", "mixed_precision")


def check_stages(stages: Sequence[Stage], settings: TrainSettings) -> None:
    """Raise `UserError` for stages that cannot be: none with a step, two of one name, quantised specialists that should move."""
    names = [stage.name for stage in stages]
    if not names:
        raise UserError("no stage to train; give at least one")
    if not any(stage.steps for stage in stages):
        raise UserError(f"nothing to train: 0 steps in stage {' and stage '.join(names)}; give at least one of them some")
    if len(set(names)) < len(names):
        raise UserError(f"two stages have one name: {', '.join(names)}; rename one")
    for stage in stages:
        if settings.load_in and stage.moves != "gate" and stage.steps:
            raise UserError(
                f"load_in={settings.load_in} freezes the specialists, but stage '{stage.name}' moves '{stage.moves}'; "
                "train only the gate or drop load_in"
            )


def split_batch(global_batch: int, processes: int, limit: int) -> tuple[int, int]:
    """(micro-batch, accumulation steps): the largest micro-batch of at most ``limit`` that divides each process's share."""
    if global_batch % processes:
        raise UserError(
            f"a global batch of {global_batch} examples cannot be shared by {processes} processes; "
            f"choose per_domain so that per_domain x domains is a multiple of {processes}"
        )
    share = global_batch // processes
    micro = max(size for size in range(1, min(limit, share) + 1) if share % size == 0)
    return micro, share // micro
