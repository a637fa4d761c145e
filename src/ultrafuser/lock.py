"""One process at a time where something is being made: a hidden file that the operating system lets go of however it ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ultrafuser.errors import UserError


@contextlib.contextmanager
def only_one(what: str, place: Path, *, inside: bool = False) -> Iterator[None]:
    """Let this process alone do ``what`` ("run", "evaluation") at ``place``, to the end of the block or of the process.

    The file is ``.NAME.lock`` beside ``place``, in a directory that must exist; with ``inside`` it is ``place/.lock``. It goes at
    the end of the block; one that a killed process left is free. Of processes that work together the main one takes it, and the
    others must learn whether it could. Raises `UserError` while another process has it, and where nothing can be written.
    """
    file = place / ".lock" if inside else place.with_name(f".{place.name}.lock")
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"{place}: another {what} is going on there; wait for its end or choose another output") from None
    except OSError as error:
        raise UserError(f"{place}: cannot be written ({file.name}: {error.strerror}); choose another output") from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows removes no open file
            file.unlink()  # as long as it is held: who opened it meanwhile finds it gone, from filelock 4.0 on
        lock.release()
