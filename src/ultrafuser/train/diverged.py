"""Stops training that has diverged: a number that is not finite never gets into the metrics or a checkpoint.

Adam's steps are bounded by the learning rate, so nearly always that was too high. The numbers looked at are on the CPU already,
or about to be written: no step waits for this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch

from ultrafuser.errors import UserError
from ultrafuser.train.checkpoint import checkpoints
from ultrafuser.train.processes import any_process
from ultrafuser.train.stage import Stage


def require_finite_metrics(metrics: Mapping[str, float], stage: Stage, step: int, folder: Path) -> None:
    """Raise `UserError` if a metric of ``step`` is not finite. ``folder`` holds the stage's checkpoints."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise _diverged(f"{name} is {value}", stage, step, folder)


def require_finite_weights(weights: Mapping[str, torch.Tensor], stage: Stage, step: int, folder: Path) -> None:
    """As above, for the weights that move, whole or sharded. A collective operation: call it on every process."""
    own = [weight.to_local() if hasattr(weight, "to_local") else weight for weight in weights.values()]  # this process's share
    if any_process(not all(weight.isfinite().all() for weight in own), own[0].device):
        raise _diverged("weights are not finite", stage, step, folder)


def _diverged(what: str, stage: Stage, step: int, folder: Path) -> UserError:
    kept = checkpoints(folder)
    return UserError(
        f"stage '{stage.name}' has diverged: at step {step} {what}. No model was written"
        + (f", the last good checkpoint is {kept[-1]}" if kept else "")
        + f"; try a learning rate lower than {stage.learning_rate:g}, with --overwrite to start anew"
    )
