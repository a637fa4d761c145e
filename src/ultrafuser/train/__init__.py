"""Two-stage training on the Hugging Face Trainer: stages, class-balanced batches, atomic checkpoints, metrics per domain.

From Python: ``from ultrafuser.train import Stage, TrainSettings, train``.
"""

from __future__ import annotations

import importlib
from typing import Any

from ultrafuser.train.stage import Stage, TrainSettings

__all__ = ["Stage", "TrainSettings", "train"]


def __getattr__(name: str) -> Any:
    """`train` is loaded when used: it needs torch, which stages and settings do not."""
    if name != "train":
        raise AttributeError(f"module 'ultrafuser.train' has no attribute {name!r}")
    return importlib.import_module("ultrafuser.train.run").train
