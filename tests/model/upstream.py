"""Where transformers' own tests are, and which of them are expected to fail.

The library does not distribute its tests: they are read from a git checkout of the same release, named by an environment
variable. Nothing of it is copied here.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import transformers

VARIABLE = "ULTRAFUSER_TRANSFORMERS_TESTS"


def checkout() -> Path | str:
    """The checkout that `VARIABLE` names, or one sentence that says why there is none to run."""
    named = os.environ.get(VARIABLE)
    if not named:
        return f"set {VARIABLE} to a git checkout of transformers {transformers.__version__} to run the library's own tests"
    root = Path(named).absolute()
    for needed in ("src/transformers/__init__.py", "tests/generation/test_utils.py", "tests/test_modeling_common.py"):
        if not (root / needed).is_file():
            return f"{VARIABLE}={named} is not a git checkout of transformers: it has no {needed}"
    theirs = re.search(r'^__version__ = "(.+)"', (root / "src/transformers/__init__.py").read_text("utf-8"), re.MULTILINE)
    if theirs is None or theirs[1].split(".")[:2] != transformers.__version__.split(".")[:2]:
        return f"{VARIABLE}={named} is transformers {theirs and theirs[1]}, but {transformers.__version__} is installed"
    return root


def expected_to_fail(reasons: dict[str, str]) -> Callable[[type], type]:
    """Mark the inherited tests named by ``reasons`` as failing for that reason; one that passes, or is not there, is an error."""

    def mark(case: type) -> type:
        for name, reason in reasons.items():
            setattr(case, name, pytest.mark.xfail(reason=reason, strict=True)(_own_copy(getattr(case, name))))
        return case

    return mark


def _own_copy(test: Callable[..., Any]) -> Callable[..., Any]:
    """The same test as a function of its own, so that a mark on it does not reach the class it was inherited from."""

    @functools.wraps(test)
    def copied(self: Any) -> Any:
        return test(self)

    return copied
