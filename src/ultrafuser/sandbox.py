"""Run an untrusted Python program in a separate process.

What it stops: endless loops and sleeps (CPU and wall-clock limits; the whole process group is killed), memory and disk hogs,
output floods, fork bombs (not when we run as root, whom the process limit does not bind), reading our environment variables,
and everything that needs our memory or our installed packages. With ``imports`` given (the restricted mode) also, by name:
files, network, ``eval``, attributes that begin with an underscore, and every import that is not in the list.

What it does NOT stop: the program runs as our own user on our own kernel. Without ``imports`` it can read and write every
file that we can, and use the network. The restricted mode is a fence for programs that a language model writes by mistake,
not for those that an attacker writes on purpose. A sandbox that holds those needs namespaces (bubblewrap, a container): give
``launcher``, the command that the interpreter is started with, e.g. ``("bwrap", "--unshare-all", ..)``.

A program cannot pass for a right one by exiting early or by printing what a judge looks for: `call_functions` brings the
returned values back and the caller compares them here, with what the program never saw; `ProgramResult.ok` needs the program
to have come to its own end, which is told by a fresh random word on another file descriptor than its output. (A program that
searches the interpreter's frames could find that word; it cannot find the values.) `_sandbox_child.py` is the other end.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

CHILD = Path(__file__).with_name("_sandbox_child.py")
START_SECONDS = 10.0  # on top of the limits of the programs: to start the interpreter on a busy machine


@dataclass(frozen=True)
class Limits:
    """What one program may use. Output beyond ``output_bytes`` is cut off; no file may grow beyond ``file_bytes``."""

    wall_seconds: float = 5.0
    cpu_seconds: float = 5.0
    memory_bytes: int = 512 * 2**20
    file_bytes: int = 2**20
    output_bytes: int = 2**16
    open_files: int = 32
    processes: int = 0


@dataclass(frozen=True)
class ProgramResult:
    """``ok``: the program came to its end without an exception. ``returncode`` is negative for a signal, as in `subprocess`."""

    ok: bool
    stdout: str
    stderr: str
    timed_out: bool
    returncode: int


@dataclass(frozen=True)
class FunctionCalls:
    """A program, the name of a function it must define, and the argument lists to call that with (JSON values)."""

    source: str
    function: str
    arguments: Sequence[Sequence[Any]]


def run_program(
    source: str, *, limits: Limits | None = None, imports: Sequence[str] | None = None, launcher: Sequence[str] = ()
) -> ProgramResult:
    """Run ``source`` as a program of its own, with empty standard input, in an empty directory that is deleted afterwards.

    ``imports=None`` gives it all of the standard library; a list (it may be empty) means the restricted mode with those modules.
    """
    limits = limits or Limits()
    nonce = secrets.token_hex(16)
    job = {"program": source, "nonce": nonce, "imports": imports, "limits": asdict(limits)}
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        word, returncode, timed_out = _run_child(job, limits.wall_seconds, launcher, stdout, stderr)
        ok = word == nonce and returncode == 0 and not timed_out
        return ProgramResult(ok, _head(stdout, limits), _head(stderr, limits), timed_out, returncode)


def call_functions(
    jobs: Sequence[FunctionCalls],
    *,
    limits: Limits | None = None,
    imports: Sequence[str] = (),
    launcher: Sequence[str] = (),
    workers: int | None = None,
) -> list[list[Any] | None]:
    """The values that each job's function returns, one per argument list; None where the program failed in any way.

    Restricted mode always. Each job has a process of its own, forked from one of ``workers`` interpreters (default: one per
    CPU), so one that loops, crashes or kills its interpreter costs the others nothing but time. Values are those JSON has.
    """
    limits = limits or Limits(wall_seconds=2.0, cpu_seconds=2.0)
    workers = max(1, min(workers or os.cpu_count() or 1, len(jobs)))
    shares = [list(range(start, len(jobs), workers)) for start in range(workers)]
    results: list[list[Any] | None] = [None] * len(jobs)
    with ThreadPoolExecutor(workers) as pool:
        values = pool.map(lambda share: list(_call_share([jobs[i] for i in share], limits, imports, launcher)), shares)
        for share, share_values in zip(shares, values, strict=True):
            for index, value in zip(share, share_values, strict=True):
                results[index] = value
    return results


def _call_share(
    jobs: list[FunctionCalls], limits: Limits, imports: Sequence[str], launcher: Sequence[str]
) -> Iterator[list[Any] | None]:
    """Results in order. Where the child died (it writes one line per job), that job has failed and the rest go to a new child."""
    while jobs:
        work = {"calls": [asdict(job) for job in jobs], "imports": list(imports), "limits": asdict(limits)}
        wall = limits.wall_seconds * len(jobs)
        lines = _run_child(work, wall, launcher, subprocess.DEVNULL, subprocess.DEVNULL)[0].splitlines()
        done = [_values(job, line) for job, line in zip(jobs, lines, strict=False)]
        yield from done
        if len(done) < len(jobs):
            yield None
        jobs = jobs[len(done) + 1 :]


def _values(job: FunctionCalls, line: str) -> list[Any] | None:
    try:
        values = json.loads(line)
    except ValueError:
        return None
    return values if isinstance(values, list) and len(values) == len(job.arguments) else None


def _run_child(
    job: dict[str, Any], wall_seconds: float, launcher: Sequence[str], stdout: IO[bytes] | int, stderr: IO[bytes] | int
) -> tuple[str, int, bool]:
    """Start a fresh interpreter on ``job``; returns what it reported, its return code, and whether time ran out."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as report, tempfile.TemporaryFile() as task:
        task.write(json.dumps({**job, "report": report.fileno()}).encode())
        task.seek(0)
        process = subprocess.Popen(
            [*launcher, sys.executable, "-I", "-S", str(CHILD)],
            stdin=task, stdout=stdout, stderr=stderr, cwd=folder, env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
            pass_fds=(report.fileno(),), start_new_session=True,
        )  # fmt: skip
        timed_out = False
        try:
            process.wait(wall_seconds + START_SECONDS)
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            _kill_group(process)
        report.seek(0)
        return (
            report.read().decode(errors="replace"),
            process.returncode,
            timed_out or -process.returncode in (signal.SIGALRM, signal.SIGXCPU),
        )


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill the child and everything that it started in its process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _head(file: IO[bytes], limits: Limits) -> str:
    file.seek(0)
    return file.read(limits.output_bytes).decode(errors="replace")
