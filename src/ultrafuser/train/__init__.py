"""Two-stage training on the Hugging Face Trainer: stages, class-balanced batches, atomic checkpoints, metrics per domain.

From Python: ``from ultrafuser.train import Stage, TrainSettings, train``, or ``ultrafuser.train(..)``, the same function.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from types import ModuleType
from typing import Any

from ultrafuser.train.stage import Stage, TrainSettings

__all__ = ["Stage", "TrainSettings", "train"]


def __getattr__(name: str) -> Any:
    """`train` is loaded when used: it needs torch, which stages and settings do not."""
    if name != "train":
        raise AttributeError(f"module 'ultrafuser.train' has no attribute {name!r}")
    return importlib.import_module("ultrafuser.train.run").train


def __dir__() -> list[str]:
    """What there is, loaded or not: `help` looks here."""
    return sorted({*globals(), *__all__})


class _Trains(ModuleType):
    """Makes this package callable: ``ultrafuser.train`` names it as soon as any part of it is imported."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        """`ultrafuser.train.run.train`."""
        return self.train(*args, **options)

    @property
    def __signature__(self) -> inspect.Signature:
        """That of the function, for `inspect.signature`."""
        return inspect.signature(self.train)


sys.modules[__name__].__class__ = _Trains
