"""Which level of isolation this machine offers, each tried out once before it is used, and which programs may run at it."""

from __future__ import annotations

import functools
import os
import shutil
import sys
import warnings
from collections.abc import Mapping
from typing import Literal, get_args

from ultrafuser.errors import UserError, did_you_mean
from ultrafuser.sandbox.limits import Limits
from ultrafuser.sandbox.process import Sandbox

Isolation = Literal["bubblewrap", "namespaces", "landlock", "limits"]  # the best first
Programs = Literal["full", "restricted"]  # with all of the standard library, or with nothing that reaches outside
LEVELS: tuple[Isolation, ...] = get_args(Isolation)
VARIABLE = "ULTRAFUSER_SANDBOX"
WEAKEST: Mapping[Programs, Isolation] = {"full": "landlock", "restricted": "limits"}  # where it is not set
# An empty working directory to write to, no other one to be listed, and no processes beyond the limit.
TRIAL = """
import os
assert not os.listdir()
open("f", "w").close()
def assert_fails(attack, *arguments):
    try:
        attack(*arguments)
    except OSError:
        return
    raise AssertionError((attack, arguments))
assert_fails(os.fork)
assert_fails(open, "/etc/passwd")
"""
IN_NAMESPACES = """
assert os.getuid() and int(os.readlink("/proc/self")) < 9
assert len(open("/proc/net/dev").readlines()) == 3
"""
UNDER_LANDLOCK = """
import socket
assert_fails(os.listdir, "/")
assert_fails(open, "/f", "w")
assert_fails(os.kill, os.getppid(), 0)
assert_fails(socket.socket)
"""
TRIALS = {
    "bubblewrap": TRIAL + IN_NAMESPACES,
    "namespaces": TRIAL + IN_NAMESPACES,
    "landlock": TRIAL + UNDER_LANDLOCK,
    "limits": "",
}


def require_level(programs: Programs) -> Isolation:
    """The level at which such programs run here: the best that works. Full programs at "limits" are warned of, once.

    Raises UserError if it is weaker than the one that the environment variable ULTRAFUSER_SANDBOX names (if that is not set, than
    `WEAKEST`), if that is the name of no level, and where no program can be run at all.
    """
    weakest = os.environ.get(VARIABLE) or WEAKEST[programs]
    if weakest not in LEVELS:
        raise UserError(f"{VARIABLE}: no level is called '{weakest}'{did_you_mean(weakest, LEVELS)} (known: {', '.join(LEVELS)})")
    level = isolation()
    if level is None:
        raise UserError("generated programs cannot be run here: a trial fails even under limits alone (is this Linux?)")
    if LEVELS.index(level) > LEVELS.index(weakest):
        why = "where they could read your files" if level == "limits" else f"and {VARIABLE} asks for '{weakest}'"
        raise UserError(
            f"generated programs are not run here: the sandbox only reaches level '{level}', {why}; install bubblewrap, allow "
            f"user namespaces or use a kernel with Landlock (Linux 5.13), or set {VARIABLE}={level} to run them all the same, "
            "say in a container that holds nothing else"
        )
    if level == "limits" and programs == "full":
        warn_of_limits()
    return level


@functools.cache
def warn_of_limits() -> None:
    warnings.warn(
        "generated programs run under limits only: neither bubblewrap, user namespaces nor Landlock (Linux 5.13) work here. "
        "They can read what we can read; install bubblewrap, or run in a container that holds nothing else.",
        stacklevel=4,
    )


def isolation() -> Isolation | None:
    """The best level that works on this machine; None where no program can be run."""
    return next((level for level in LEVELS if works(level)), None)


@functools.cache
def works(level: Isolation) -> bool:
    """Whether a program runs at this level, and is held back by it."""
    if sys.platform != "linux" or (level == "bubblewrap" and shutil.which("bwrap") is None):
        return False
    job = {"role": "program", "source": TRIALS[level], "imports": None}
    limits = Limits(wall_seconds=60.0)  # a level that works is not to be given up because the machine is busy
    with Sandbox(level, limits, job) as sandbox:
        report = sandbox.report(limits.wall_seconds)
        return report is not None and report["ended"]
