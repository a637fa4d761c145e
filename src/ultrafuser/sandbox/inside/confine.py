"""Runs work in a fork of the supervisor, under limits that the fork cannot lift and that end with it."""

from __future__ import annotations

import _signal as signal  # `signal` would also import the enumerations, which takes as long as Python's whole start
import os
import resource

from . import kernel, watch

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing `typing` takes as long as all the rest
    from collections.abc import Callable, Iterable
    from typing import Any


def run_confined(
    work: Callable[[int], None], job: dict[str, Any], *, keep: Iterable[int] = (), most: int = 2**20
) -> tuple[int, bool, bytes]:
    """Fork, confine the fork as ``job`` says and call ``work`` there, with a descriptor to write its result to (``most`` bytes).

    Returns the return code (negative for a signal), whether time ran out, and the result. The fork has empty standard input
    and no descriptors but output, result and ``keep``. All that it has started is gone when this returns.
    """
    limits = job["limits"]
    result = os.memfd_create("result")
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        if job["rules"] is not None:
            kernel.restrict_to(job["rules"])
        keep_descriptors([result, *keep])
        limit(limits)
        if job["filter"] is not None:
            kernel.set_system_call_filter(job["filter"])
        work(result)
        raise SystemExit  # let the interpreter end as it always does
    returncode, timed_out = watch.wait(child, limits)
    if limits["processes"] or os.geteuid() == 0:  # else it could not start any process
        watch.kill_leftovers(child)
    written = os.pread(result, most + 1, 0)
    os.close(result)
    return returncode, timed_out, written if len(written) <= most else b""


def keep_descriptors(kept: list[int]) -> None:
    """Close all descriptors but output and ``kept``; standard input becomes empty."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    first = 3
    for descriptor in sorted(kept):
        os.closerange(first, descriptor)
        os.set_inheritable(descriptor, False)
        first = descriptor + 1
    os.closerange(first, 2**20)


def limit(limits: dict[str, Any]) -> None:
    """Set this process's limits, for good. Signals have their default action again: `SIGXCPU` kills."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    if os.getppid() != 1:  # with the first process of a namespace everything in it ends anyhow
        kernel.process_control(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    cpu = int(limits["cpu_seconds"]) + (limits["cpu_seconds"] % 1 > 0)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    for kind, value in (
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_NOFILE, limits["open_files"]),
        (resource.RLIMIT_NPROC, limits["processes"]),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))
