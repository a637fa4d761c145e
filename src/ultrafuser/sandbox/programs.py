"""Run one untrusted program and see what it prints."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from ultrafuser.sandbox import levels
from ultrafuser.sandbox.limits import Limits
from ultrafuser.sandbox.process import Sandbox


@dataclass(frozen=True)
class ProgramResult:
    """``ok``: the program came to its end without an exception. ``returncode`` is negative for a signal, as in `subprocess`."""

    ok: bool
    stdout: str
    stderr: str
    timed_out: bool
    returncode: int


def run_program(source: str, *, limits: Limits | None = None, imports: Sequence[str] | None = None) -> ProgramResult:
    """Run ``source`` as a program of its own, with empty standard input, in an empty directory that is deleted afterwards.

    ``imports=None`` gives it all of the standard library; a list (it may be empty) means the restricted mode with those modules.
    Raises UserError where the machine's level is not enough for that (`levels.require_level`).
    """
    level = levels.require_level("full" if imports is None else "restricted")
    limits = limits or Limits()
    job = {"role": "program", "source": source, "imports": None if imports is None else list(imports)}
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        with Sandbox(level, limits, job, stdout=stdout, stderr=stderr) as sandbox:
            report = sandbox.report(limits.wall_seconds)
        # Where nothing isolates it, a program can kill what supervises it and would report.
        end = report or {"ended": False, "timed_out": False, "returncode": -signal.SIGKILL}
        ok = end["ended"] and end["returncode"] == 0 and not end["timed_out"]
        return ProgramResult(ok, _head(stdout, limits), _head(stderr, limits), end["timed_out"], end["returncode"])


def _head(file: IO[bytes], limits: Limits) -> str:
    file.seek(0)
    return file.read(limits.output_bytes).decode(errors="replace")
