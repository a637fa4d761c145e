"""UltraFuser: fuse specialised language models into one that is as good as the best of them at everything.

``import ultrafuser`` registers the fused model with transformers' Auto classes. The functions below are loaded when used;
``ultrafuser.train`` is a package that can be called, since a package hides any function of its name.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "fuse": "ultrafuser.model.fuse",
    "FuseOptions": "ultrafuser.model.fuse",
    "check": "ultrafuser.model.check",
    "extract": "ultrafuser.model.extract",
    "average_merge": "ultrafuser.model.merge",
    "Stage": "ultrafuser.train.stage",
    "TrainSettings": "ultrafuser.train.stage",
    "UltraFuserConfig": "ultrafuser.model.configuration_ultrafuser",
    "UltraFuserForCausalLM": "ultrafuser.model.modeling_ultrafuser",
    "UserError": "ultrafuser.errors",
}
__all__ = ["__version__", "train", *_LAZY]


def __getattr__(name: str) -> Any:
    if name == "train":
        return importlib.import_module("ultrafuser.train")
    if name not in _LAZY:
        raise AttributeError(f"module 'ultrafuser' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _needs_models() -> bool:
    """Whether to register now, which loads torch.

    The command line registers when a command comes to need a model, so that ``ultrafuser --help`` answers at once. Processes that
    only ask endpoints say so (`endpoints/ray.py`). What needs no torch works where it is not installed.
    """
    waits = _program() in ("ultrafuser", "ultrafuser.cli") or "ULTRAFUSER_WITHOUT_MODELS" in os.environ
    return not waits and importlib.util.find_spec("torch") is not None


def _program() -> str:
    """The name of the script or module that this process runs; while ``python -m`` looks for it, it is not in ``sys.argv``."""
    return sys.orig_argv[-len(sys.argv)] if sys.argv[0] == "-m" else Path(sys.argv[0]).stem


if _needs_models():
    importlib.import_module("ultrafuser.model")
