"""Watches a running program: its time, what its working directory holds, and that nothing of it is left at the end."""

from __future__ import annotations

import _signal as signal  # `signal` would also import the enumerations, which takes as long as Python's whole start
import os
import time

from .nobody import UNUSED_USERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LOOK_SECONDS = 0.1
MOST_FILES = 4096


def wait(child: int, limits: dict[str, Any]) -> tuple[int, bool]:
    """The child's return code, and whether its wall or CPU time ran out."""
    late = []
    end = time.monotonic() + limits["wall_seconds"]

    def look(*_: object) -> None:
        if time.monotonic() >= end:
            late.append(child)
        elif holds_at_most(limits["folder_bytes"]):
            signal.setitimer(signal.ITIMER_REAL, pause)  # not before: a look may take longer, and the next would interrupt it
            return
        try:
            os.kill(child, signal.SIGKILL)
        except ProcessLookupError:
            return  # it ended this very moment

    signal.signal(signal.SIGALRM, look)
    pause = min(LOOK_SECONDS, limits["wall_seconds"])
    signal.setitimer(signal.ITIMER_REAL, pause)
    _, status, used = os.wait4(child, 0)
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 0)
    returncode = os.waitstatus_to_exitcode(status)
    spent = returncode == -signal.SIGKILL and used.ru_utime + used.ru_stime >= limits["cpu_seconds"]
    return returncode, bool(late) or spent or returncode == -signal.SIGXCPU


def holds_at_most(limit: int) -> bool:
    """Whether the working directory holds no more bytes. Where it has no file system of its own, nothing else limits it."""
    folders, files, used = [os.curdir], 0, 0
    while folders:
        try:
            found = list(os.scandir(folders.pop()))
            files += len(found)
            used += sum(map(allocated, found[:MOST_FILES]))
        except FileNotFoundError:
            continue  # deleted this very moment
        except OSError:
            return False  # made unreadable, or too deep to look into
        if files > MOST_FILES or used > limit:
            return False
        folders += [entry.path for entry in found if entry.is_dir(follow_symlinks=False)]
    return True


def allocated(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_blocks * 512
    except FileNotFoundError:
        return 0


def kill_leftovers(child: int) -> None:
    """Kill what the child left behind: all that this user has where nothing of it is anybody else's, else the process group."""
    everything = os.getpid() == 1 or os.geteuid() >= UNUSED_USERS
    try:
        os.kill(-1 if everything else -child, signal.SIGKILL)
        while everything:
            os.waitpid(-1, 0)
    except (ProcessLookupError, ChildProcessError):
        return
