"""The working directory of a program, where it is one on disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def working_folder() -> Iterator[Path]:
    """An empty directory, which is deleted afterwards with whatever a program has put into it."""
    folder = Path(tempfile.mkdtemp())
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):
            empty(folder)
        shutil.rmtree(folder, ignore_errors=True)


def empty(folder: Path) -> None:
    """Delete all that is in it, be it deeper than a recursion or a path can be, or closed to us."""
    here = os.open(folder, os.O_RDONLY)
    left = [delete_files(here)]  # of each directory on the way down: those in it that are still to be deleted
    while left[-1] or len(left) > 1:
        if left[-1]:
            os.chmod(left[-1][-1], 0o700, dir_fd=here)
            here = enter(here, left[-1][-1])
            left.append(delete_files(here))
        else:
            left.pop()
            here = enter(here, "..")
            os.rmdir(left[-1].pop(), dir_fd=here)
    os.close(here)


def enter(here: int, name: str) -> int:
    """A descriptor of that directory in ``here``, whose own is closed."""
    there = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=here)
    os.close(here)
    return there


def delete_files(here: int) -> list[str]:
    """Returns the names of the directories, which stay."""
    with os.scandir(here) as entries:
        names = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
    for name, is_folder in names.items():
        if not is_folder:
            os.unlink(name, dir_fd=here)
    return [name for name, is_folder in names.items() if is_folder]
