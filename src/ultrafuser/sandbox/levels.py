"""Which level of isolation there is on this machine; each is tried out once before it is used."""

from __future__ import annotations

import functools
import shutil
import warnings
from typing import Literal, get_args

from ultrafuser.sandbox.limits import Limits
from ultrafuser.sandbox.process import Sandbox

Isolation = Literal["bubblewrap", "namespaces", "limits"]
# Namespaces of its own, a working directory of its own, nothing of ours to be seen, no root, and no processes beyond the limit.
TRIAL = """
import os
assert os.getuid() and int(os.readlink("/proc/self")) < 9 and not os.listdir() and not os.path.exists("/etc/passwd")
open("f", "w").close()
assert len(open("/proc/net/dev").readlines()) == 3
try:
    os.fork()
except BlockingIOError:
    pass
else:
    raise AssertionError("the limit on processes does not bind")
"""


@functools.cache
def isolation() -> Isolation:
    """The best level that works here: "bubblewrap", "namespaces" or "limits" (warns once that these alone are weak)."""
    for level in get_args(Isolation):
        if works(level):
            break
    if level == "limits":
        warnings.warn(
            "generated programs run under limits only: neither bubblewrap nor user namespaces work here. They can read what we "
            "can read and use the network; install bubblewrap, or run in a container that holds nothing else.",
            stacklevel=2,
        )
    return level


@functools.cache
def works(level: Isolation) -> bool:
    """Whether a program runs at this level, and is held back by it."""
    if level == "limits":
        return True
    if level == "bubblewrap" and shutil.which("bwrap") is None:
        return False
    job = {"role": "program", "source": TRIAL, "imports": None}
    with Sandbox(level, Limits(), job) as sandbox:
        report = sandbox.report(Limits().wall_seconds)
        return report is not None and report["ended"]
