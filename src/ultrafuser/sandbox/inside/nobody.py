"""Giving up being root, whom the limit on processes does not bind."""

# `pathlib` takes longer to import than all the rest.
# ruff: noqa: PTH116
from __future__ import annotations

import os

from . import kernel

UNUSED_USERS = 1_900_000_000  # systems give no user a number from here to 2^31
NOBODY = 65534


def become_nobody() -> None:
    """Where we are root: become a user who owns nothing and runs nothing else, or at least a root without special rights.

    Where only its owner can read the Python installation and nothing is mounted for us, the right to read all files is kept.
    """
    if os.geteuid() != 0:
        return
    kernel.process_control(kernel.PR_SET_KEEPCAPS, 1)
    if not (change_user(UNUSED_USERS + int.from_bytes(os.urandom(3), "big")) or change_user(NOBODY)):
        own_folder(0)
    try:
        os.close(os.open(os.__file__, os.O_RDONLY))
        kernel.keep_capabilities()
    except PermissionError:
        kernel.keep_capabilities(kernel.CAP_DAC_READ_SEARCH)


def change_user(user: int) -> bool:
    """Become ``user``, who then owns the working directory. False where the system has no such user."""
    try:
        own_folder(user)
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    except OSError:
        return False
    return True


def own_folder(user: int) -> None:
    """Let ``user`` own the working directory if that is ours alone."""
    if not os.stat(os.curdir).st_mode & 0o002:
        os.chown(os.curdir, user, user)
