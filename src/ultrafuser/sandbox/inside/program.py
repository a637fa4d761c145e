"""One whole program."""

from __future__ import annotations

import os
import sys

from .confine import run_confined

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

FILE = "<program>"


def supervise(job: dict[str, Any], report: Callable[[Any], None]) -> None:
    """Reports the return code, whether time ran out, and whether the program came to its end (says a word it did not see)."""
    word = os.urandom(16)

    def work(result: int) -> None:
        execute(job["source"], job["imports"])
        sys.stdout.flush()
        os.write(result, word)

    returncode, timed_out, written = run_confined(work, job)
    report({"returncode": returncode, "timed_out": timed_out, "ended": written == word})


def execute(source: str, imports: list[str] | None, name: str = "__main__") -> dict[str, Any]:
    """Execute ``source`` as the module ``name``; with ``imports`` a list, in the restricted mode. Returns its global names."""
    if imports is not None:
        from . import restricted

        tree = restricted.parse(source, FILE)
        names = restricted.global_names(imports)
        restricted.stop_imports()
        exec(compile(tree, FILE, "exec", dont_inherit=True), names)
        return names
    sys.modules[name] = module = type(sys)(name)
    exec(compile(source, FILE, "exec", dont_inherit=True), vars(module))
    return vars(module)
