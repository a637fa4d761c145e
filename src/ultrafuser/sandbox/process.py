"""One sandbox: an interpreter of its own that carries out a job and reports, at the level of isolation that is asked for."""

from __future__ import annotations

import compileall
import contextlib
import functools
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from types import TracebackType
from typing import IO, Any

from ultrafuser.sandbox import filter
from ultrafuser.sandbox.folder import working_folder
from ultrafuser.sandbox.inside import values
from ultrafuser.sandbox.limits import Limits
from ultrafuser.sandbox.view import INSIDE, bubblewrap, python, view

START_SECONDS = 20.0  # on top of the limits of the programs: to start the interpreter on a busy machine
Output = IO[bytes] | int


class Sandbox:
    """Use it as a context manager: when that is left, nothing of the sandbox runs any more and its directory is gone.

    ``job`` is what `inside/main.py` expects, without what is said here; ``descriptors`` are open inside under the same numbers.
    """

    def __init__(
        self,
        level: str,
        limits: Limits,
        job: dict[str, Any],
        *,
        descriptors: Sequence[int] = (),
        stdout: Output = subprocess.DEVNULL,
        stderr: Output = subprocess.DEVNULL,
    ) -> None:
        compile_inside()
        seen = view(limits)
        self._ended = False
        with contextlib.ExitStack() as stack:
            self._report = stack.enter_context(tempfile.TemporaryFile())
            code = filter.code(processes=limits.processes > 0, attributes=level != "landlock")
            more = {"level": level, "view": seen, "filter": code, "limits": asdict(limits), "report": self._report.fileno()}
            file = stack.enter_context(tempfile.TemporaryFile())
            file.write(values.encode({**job, **more}))
            file.seek(0)
            folder = stack.enter_context(working_folder())
            self._process = subprocess.Popen(
                bubblewrap(seen) if level == "bubblewrap" else python(),
                stdin=file, stdout=stdout, stderr=stderr, cwd=folder, env={},
                pass_fds=(self._report.fileno(), *descriptors), start_new_session=True,
            )  # fmt: skip
            stack.callback(self._end)
            self._resources = stack.pop_all()

    def reports(self, seconds: float) -> list[Any]:
        """What it has reported when it ends or ``seconds`` (besides the time to start) are over."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds + START_SECONDS)
        self._end()
        self._report.seek(0)
        content = self._report.read()
        found = []
        while content:
            size, _, content = content.partition(b":")
            found.append(values.decode(content[: int(size)]))
            content = content[int(size) :]
        return found

    def report(self, seconds: float) -> dict[str, Any] | None:
        """The one report of a job that gives one; None where the sandbox ended without."""
        return next(iter(self.reports(seconds)), None)

    def _end(self) -> None:
        if not self._ended:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._ended = True

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._resources.close()


@functools.cache
def compile_inside() -> None:
    """Have Python's byte code of the inside ready: it could not be kept from in there, and would be compiled at each start."""
    compileall.compile_dir(INSIDE, quiet=2)
