"""Which level of isolation there is on this machine; each is tried out once before it is used."""

from __future__ import annotations

import functools
import shutil
import warnings
from typing import Literal, get_args

from ultrafuser.errors import UserError
from ultrafuser.sandbox.limits import Limits
from ultrafuser.sandbox.process import Sandbox

Isolation = Literal["bubblewrap", "namespaces", "landlock", "limits"]
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


@functools.cache
def isolation() -> Isolation:
    """The best level that works here: "bubblewrap", "namespaces", "landlock" or "limits" (warns once that these alone are weak).

    Raises UserError where no program can be run at all.
    """
    for level in get_args(Isolation):
        if works(level):
            break
    else:
        raise UserError("generated programs cannot be run here: a trial fails even under limits alone (is this Linux?)")
    if level == "limits":
        warnings.warn(
            "generated programs run under limits only: neither bubblewrap, user namespaces nor Landlock (Linux 5.13) work here. "
            "They can read what we can read; install bubblewrap, or run in a container that holds nothing else.",
            stacklevel=2,
        )
    return level


@functools.cache
def works(level: Isolation) -> bool:
    """Whether a program runs at this level, and is held back by it."""
    if level == "bubblewrap" and shutil.which("bwrap") is None:
        return False
    job = {"role": "program", "source": TRIALS[level], "imports": None}
    with Sandbox(level, Limits(), job) as sandbox:
        report = sandbox.report(Limits().wall_seconds)
        return report is not None and report["ended"]
