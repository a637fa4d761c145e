"""What a training run is made of: stages and settings (paper, section 3; issue part "Two-stage training").

The paper trains in two stages because gradients through an untrained gate damage the specialists: first the gate alone,
400 steps with 64 examples of every domain per batch, then everything, about 5,000 steps with 32. A recipe says the same things,
so both are declared in `ultrafuser.schema`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from ultrafuser.contradictions import training_contradictions
from ultrafuser.errors import UserError
from ultrafuser.schema import PAPER_STAGES, Moves, Stage, TrainSettings

__all__ = ["DECISIVE_SETTINGS", "MOVES", "PAPER_STAGES", "Stage", "TrainSettings", "check_stages", "split_batch"]
MOVES: tuple[Moves, ...] = get_args(Moves)

# The settings that decide the trained weights: an unfinished run goes on only if they are what they were. The others change
# speed, memory or what is shown (the micro-batch moves the weights by rounding only).
DECISIVE_SETTINGS = ("seed", "max_length", "load_in", "mixed_precision")


def check_stages(stages: Sequence[Stage], settings: TrainSettings) -> None:
    """Raise `UserError` for the first thing that cannot be, such as two stages of one name or a tracker that is not there."""
    for key, mistake in training_contradictions(stages, settings):
        _, *stage = key.split(".")  # a recipe's key: report_to, stages or stages.0.moves
        where = f"stage '{stages[int(stage[0])].name}': {stage[1]}" if stage else key
        raise UserError(f"{where}: {mistake}")


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
