"""Stops training that has diverged: a number that is not finite never gets into the metrics or a checkpoint.

Numbers that are finite may be nonsense too: a loss that has risen is told, and left to the user to judge.

Adam's steps are bounded by the learning rate, so nearly always that was too high. The numbers looked at are on the CPU already,
or about to be written: no step waits for this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ultrafuser.errors import UserError
from ultrafuser.train.checkpoint import checkpoints
from ultrafuser.train.processes import any_process
from ultrafuser.train.stage import Stage

RISEN = 1.25  # times the first loss and
FAR = 0.1  # nats above it: by more than batches differ


def require_finite_metrics(metrics: Mapping[str, float], stage: Stage, step: int, folder: Path) -> None:
    """Raise `UserError` if a metric of ``step`` is not finite. ``folder`` holds the stage's checkpoints."""
    if step == 1 and not math.isfinite(metrics["loss"]):  # that of the model as it came
        raise UserError(
            f"stage '{stage.name}': the loss is {metrics['loss']} before anything has moved, whatever the learning rate; "
            "look at the model that it starts from: its weights must be nan, inf or far too large"
        )
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise _diverged(f"{name} is {value}", stage, step, folder)


def require_finite_weights(weights: Mapping[str, torch.Tensor], stage: Stage, step: int, folder: Path) -> None:
    """As above, for the weights that move, whole or sharded. A collective operation: call it on every process."""
    own = [weight.to_local() if hasattr(weight, "to_local") else weight for weight in weights.values()]  # this process's share
    if any_process(not all(weight.isfinite().all() for weight in own), own[0].device):
        raise _diverged("weights are not finite", stage, step, folder)


def risen_loss(history: Sequence[Mapping[str, Any]], stage: Stage) -> str | None:
    """What to tell where a stage ends with a loss far above the one it began with; ``history``: its log lines."""
    first, last = history[0], history[-1]
    if last["loss"] <= max(RISEN * first["loss"], first["loss"] + FAR):
        return None
    return (
        f"stage '{stage.name}': the loss has risen from {first['loss']:.4g} at step {first['step']} "
        f"to {last['loss']:.4g} at step {last['step']}; try a learning rate lower than {stage.learning_rate:g}"
    )


def _diverged(what: str, stage: Stage, step: int, folder: Path) -> UserError:
    kept = checkpoints(folder)
    return UserError(
        f"stage '{stage.name}' has diverged: at step {step} {what}. No model was written"
        + (f", the last good checkpoint is {kept[-1]}" if kept else "")
        + f"; try a learning rate lower than {stage.learning_rate:g}, with --overwrite to start anew"
    )
