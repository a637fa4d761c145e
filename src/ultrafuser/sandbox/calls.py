"""Call functions of many little untrusted programs, in the restricted mode."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ultrafuser.sandbox import levels
from ultrafuser.sandbox.limits import Limits
from ultrafuser.sandbox.process import Sandbox

LIMITS = Limits(wall_seconds=15.0, cpu_seconds=2.0)


@dataclass(frozen=True)
class FunctionCalls:
    """A program, the name of a function it must define, and the argument lists to call that with (JSON values)."""

    source: str
    function: str
    arguments: Sequence[Sequence[Any]]


def call_functions(
    jobs: Sequence[FunctionCalls],
    *,
    limits: Limits | None = None,
    imports: Sequence[str] = (),
    workers: int | None = None,
) -> list[list[Any] | None]:
    """The values that each job's function returns, one per argument list; None where the program failed in any way.

    Restricted mode always. Each job has a process of its own, forked from one of ``workers`` sandboxes (default: one per
    CPU), so one that loops, crashes or kills its interpreter costs the others nothing but time. Values are those JSON has.
    The limits are those of one job; by default 2 seconds of CPU time and 15 in all, for the machine may be busy.
    Raises UserError where no program can be run (`levels.require_level`).
    """
    if not jobs:
        return []
    limits = limits or LIMITS
    workers = max(1, min(workers or os.cpu_count() or 1, len(jobs)))
    shares = [list(range(start, len(jobs), workers)) for start in range(workers)]
    results: list[list[Any] | None] = [None] * len(jobs)
    level = levels.require_level("restricted")
    with ThreadPoolExecutor(workers) as pool:
        values = pool.map(lambda share: list(_call_share([jobs[i] for i in share], limits, imports, level)), shares)
        for share, share_values in zip(shares, values, strict=True):
            for index, value in zip(share, share_values, strict=True):
                results[index] = value
    return results


def _call_share(
    jobs: list[FunctionCalls], limits: Limits, imports: Sequence[str], level: levels.Isolation
) -> Iterator[list[Any] | None]:
    """Results in order. Where the sandbox ended early (it reports once per job), that job failed; the rest go to a new one."""
    while jobs:
        calls = [{"source": job.source, "function": job.function, "arguments": json.dumps(job.arguments)} for job in jobs]
        with Sandbox(level, limits, {"role": "calls", "calls": calls, "imports": list(imports)}) as sandbox:
            reports = sandbox.reports(limits.wall_seconds * len(jobs))
        yield from map(_values, jobs, reports)
        if len(reports) < len(jobs):
            yield None
        jobs = jobs[len(reports) + 1 :]


def _values(job: FunctionCalls, text: bytes) -> list[Any] | None:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, list) and len(values) == len(job.arguments) else None
