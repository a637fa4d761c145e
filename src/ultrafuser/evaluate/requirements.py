"""What the answers to a task need in order to be scored on this machine."""

from __future__ import annotations

import importlib.util

from ultrafuser.errors import UserError
from ultrafuser.evaluate.catalogue import TaskInfo
from ultrafuser.sandbox import require_level


def require_scoring(task: TaskInfo) -> None:
    """Raise `UserError` if answers to ``task`` could not be scored here. To be asked before anything is generated."""
    if task.programs is not None:
        require_level(task.programs)
    if task.test_set == "math" and importlib.util.find_spec("math_verify") is None:
        raise UserError("MATH answers are compared by math-verify: pip install 'ultrafuser[eval]'")
