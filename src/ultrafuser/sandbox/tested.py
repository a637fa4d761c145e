"""Run programs against their tests, each in a sandbox of its own, so that a program can neither see nor change its tests."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import track

from ultrafuser.sandbox import levels
from ultrafuser.sandbox.limits import Limits
from ultrafuser.sandbox.process import Sandbox

LIMITS = Limits(wall_seconds=15.0, cpu_seconds=5.0)


@dataclass(frozen=True)
class TestedProgram:
    """``tests`` is Python that raises if ``source`` is wrong. It may use every function, class, module and plain value that
    ``source`` defines at its top; it should itself import and define what it judges with."""

    __test__ = False  # for pytest: this is none of its classes

    source: str
    tests: str


@dataclass(frozen=True)
class TestVerdict:
    """``reason``: "passed", "timed out", what the tests raised ("AssertionError: assert f(1) == 2"), how the program ended."""

    __test__ = False

    passed: bool
    reason: str


def run_tests(
    programs: Sequence[TestedProgram], *, limits: Limits | None = None, workers: int | None = None, progress: bool = False
) -> list[TestVerdict]:
    """A verdict for each program, in order; ``workers`` (default: one per CPU) run at a time.

    The limits are those of one program, and as much again of its tests; by default 5 seconds of CPU time and 15 in all.
    ``progress`` shows a bar on standard error. Raises UserError where the machine's level is not enough (`levels.require_level`).
    """
    if not programs:
        return []
    level = levels.require_level("full")
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        verdicts = pool.map(lambda program: _verdict(program, limits or LIMITS, level), programs)
        console = Console(stderr=True)
        return list(track(verdicts, "Running tests", len(programs), console=console, disable=not progress))


def _verdict(program: TestedProgram, limits: Limits, level: levels.Isolation) -> TestVerdict:
    """Start both processes, with a pipe each way between them."""
    with contextlib.ExitStack() as stack:
        asked, ask = os.pipe()
        answered, answer = os.pipe()
        try:
            candidate = stack.enter_context(_start(level, limits, "candidate", program.source, asked, answer))
            tests = stack.enter_context(_start(level, limits, "tests", program.tests, answered, ask))
        finally:
            for descriptor in (asked, ask, answered, answer):
                os.close(descriptor)
        report = tests.report(limits.wall_seconds)
        if report is None or report["verdict"] is None:
            return TestVerdict(False, _ending("the tests", report))
        if report["verdict"]["gone"]:
            return TestVerdict(False, _ending("the program", candidate.report(limits.wall_seconds)))
        return TestVerdict(report["verdict"]["passed"], report["verdict"]["reason"])


def _start(level: levels.Isolation, limits: Limits, role: str, source: str, reader: int, writer: int) -> Sandbox:
    job = {"role": role, "source": source, "reader": reader, "writer": writer}
    return Sandbox(level, limits, job, descriptors=(reader, writer))


def _ending(who: str, end: dict[str, Any] | None) -> str:
    if end is None:
        return f"{who} ended with the sandbox"
    if end["timed_out"]:
        return "timed out"
    if end["returncode"] < 0:
        return f"{who} ended with {signal.Signals(-end['returncode']).name}"
    return f"{who} ended early, with exit code {end['returncode']}"
