"""Checkpoints that are whole or do not count.

A checkpoint is written into a hidden directory beside its final place and renamed when complete, so a process killed at any
moment leaves either a whole ``checkpoint-<step>`` or none. It holds what moves and nothing else: ``trainable.safetensors``,
the state of optimiser and schedule, the random number generators and the Trainer's own state.

The optimiser's and the generators' state are written by the Trainer with ``torch.save`` and read with ``weights_only=True``,
which runs no code; they never leave the machine that trains.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

TRAINABLE = "trainable.safetensors"
PREFIX = "checkpoint-"


def checkpoints(folder: Path) -> list[Path]:
    """The whole checkpoints in ``folder``, oldest first."""
    found = [path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(PREFIX)))


@contextlib.contextmanager
def new_checkpoint(folder: Path, step: int, *, keep: int, main: bool, barrier: Callable[[], None]) -> Iterator[Path]:
    """Yield the directory that all processes write to; it becomes ``checkpoint-<step>`` when all are done.

    Then only the newest ``keep`` checkpoints stay. ``barrier`` waits for all processes.
    """
    staging, final = folder / f".{PREFIX}{step}.part", folder / f"{PREFIX}{step}"
    if main:
        remove_leftovers(folder)
        staging.mkdir(parents=True)
    barrier()
    try:
        yield staging
    except BaseException:
        if main:  # a full disk: half of it would take the room that is to be freed
            shutil.rmtree(staging, ignore_errors=True)
        raise
    barrier()
    if main:
        _flush(staging)
        shutil.rmtree(final, ignore_errors=True)
        os.rename(staging, final)
        for old in checkpoints(folder)[:-keep]:
            _remove(old)
    barrier()


def remove_checkpoints(folder: Path) -> None:
    """Remove every checkpoint in ``folder``, whole or not."""
    remove_leftovers(folder)  # first: a whole one takes the name of its part on its way out
    for path in checkpoints(folder):
        _remove(path)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process has left behind."""
    for path in folder.glob(f".{PREFIX}*.part"):
        shutil.rmtree(path)


def _remove(path: Path) -> None:
    """Remove a checkpoint so that a kill in between leaves none that counts."""
    gone = path.with_name(f".{path.name}.part")
    os.rename(path, gone)
    shutil.rmtree(gone)


def _flush(folder: Path) -> None:
    """Have the disk hold every file before the rename says so."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
