"""Files and directories that appear whole or not at all.

What is being written stands beside its place under a hidden name, ``.NAME.12345678.part``, and holds a lock (`flock`) as long as
its process lives. So whoever writes to the same place next can tell what a killed process left behind, and removes it.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import shutil
import stat
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich import filesize

from ultrafuser.errors import UserError

try:
    import fcntl
except ImportError:  # no such locks on Windows: nothing is ever taken for left behind
    fcntl = None  # type: ignore[assignment]

FULL = (errno.ENOSPC, errno.EDQUOT)
TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)  # where a directory cannot be renamed to: something is there
DISK_FULL = "the disk is full; nothing was written. Free some space or choose another output"


def user_path(given: Path | str) -> Path:
    """The path that a user wrote, with ``~`` for a home as in a shell: it stays as it is where there is no such user."""
    try:
        return Path(given).expanduser()
    except RuntimeError:
        return Path(given)


def is_file(path: Path | str) -> bool:
    """Is there a file? No error for what is too long to be a name, which pathlib raises."""
    return os.path.isfile(path)  # noqa: PTH113


def is_directory(path: Path | str) -> bool:
    """Is there a directory? As `is_file`."""
    return os.path.isdir(path)  # noqa: PTH112


def names_beside(path: Path) -> list[str]:
    """The names in the directory of ``path``: those that may have been meant. None where it is no directory that can be read."""
    try:
        return [file.name for file in path.parent.iterdir()]
    except OSError:
        return []


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` (UTF-8) to ``path`` atomically: a reader sees the old file or the new one, never a part."""
    with _part(Path(path)) as part:
        with open(part, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file; a missing or broken one is a `UserError` that names it."""
    try:
        return parse_json(Path(path).read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None


def parse_json(raw: bytes) -> Any:
    """The value that is written in ``raw`` as JSON (UTF-8). Raises `ValueError` that says in a few words why there is none."""
    try:
        return json.loads(raw.decode("utf-8-sig").rstrip())  # a line's end would be counted as the next line's beginning
    except json.JSONDecodeError as error:
        line = f"line {error.lineno} " if error.lineno > 1 else ""
        why = f"{error.msg[0].lower()}{error.msg[1:]} at {line}character {error.colno}"
    except UnicodeDecodeError as error:
        why = f"byte {error.start + 1} is not UTF-8"
    except RecursionError:
        why = "nested too deeply"
    except ValueError:  # Python reads no number of more than 4,300 digits
        why = "a number has too many digits"
    raise ValueError(why)


def read_json_object(path: Path | str) -> dict[str, Any]:
    """Read a JSON file that holds keys with their values; one that is missing, broken or of another kind is a `UserError`."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: must hold keys with their values, in braces; fetch it again")
    return value


def require_new(path: Path | str, *, overwrite: bool = False, inputs: Iterable[Path | str] = ()) -> Path:
    """Return ``path``, as `user_path` has it, if it may be written: absent, an empty directory, or ``overwrite`` given.

    Nothing of ``inputs`` (files or directories that are read; names of something else do no harm) and not the current directory
    may be replaced, whatever was asked. Raises `UserError`.
    """
    path = user_path(path)
    if not is_vacant(path) and not overwrite:
        raise UserError(f"{path}: already exists; choose another output or give --overwrite")
    stay = {user_path(read): f"{read}, which is read from" for read in inputs} | {Path.cwd(): "the current directory"}
    for kept, what in stay.items():
        if (is_file(kept) or is_directory(kept)) and kept.resolve().is_relative_to(path.resolve()):
            raise UserError(f"{path}: is or holds {what}; choose another output")
    return path


def is_vacant(path: Path) -> bool:
    """Is there nothing, or an empty directory? Raises `UserError` where that cannot be seen."""
    try:
        return not path.exists() or (path.is_dir() and not any(path.iterdir()))
    except FileNotFoundError:  # another process has just moved it away
        return True
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def require_new_directory(path: Path | str, *, overwrite: bool = False, inputs: Iterable[Path | str] = ()) -> Path:
    """`require_new` for what will be a directory: that replaces no file, whatever was asked. Raises `UserError`."""
    path = require_new(path, overwrite=overwrite, inputs=inputs)
    if _is_no_directory(path):
        raise UserError(f"{path}: is a file; give the name of a directory")
    return path


def _is_no_directory(path: Path) -> bool:
    """Is there something else? Looked at once: between two looks another process may move it away."""
    try:
        return not stat.S_ISDIR(path.stat().st_mode)
    except OSError:
        return False


def require_outside(path: Path, folder: Path) -> None:
    """Raise `UserError` if ``path`` would lie in ``folder``, which is read from."""
    if user_path(path).resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{path}: lies in {folder}, which is read from; choose another output")


def require_creatable(path: Path) -> None:
    """Raise `UserError` if ``path`` could not be created. Tried, in the nearest directory there is: rights do not tell it all."""
    folder = _nearest(path)
    try:
        with _part(folder / path.name, directory=True):
            pass
    except OSError as error:
        raise UserError(f"{path}: cannot be created in {folder} ({error.strerror}); choose another output") from None


def make_directory(path: Path) -> None:
    """Make ``path`` and what is above it; one that is there stays as it is. Raises `UserError`."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be created ({error.strerror}); choose another output") from None


def _nearest(path: Path) -> Path:
    """The nearest directory above ``path`` that there is."""
    return next(folder for folder in path.absolute().parents if os.access(folder, os.F_OK))


def require_space(path: Path | str, needed: int) -> None:
    """Raise `UserError` when the disk that will hold ``path`` has fewer than ``needed`` bytes free."""
    free = shutil.disk_usage(_nearest(Path(path))).free
    if free < needed:
        sizes = f"needs {filesize.decimal(needed)} on disk but only {filesize.decimal(free)} are free"
        raise UserError(f"{path}: {sizes}; free some or choose another output")


@contextlib.contextmanager
def full_disk_told(folder: Path | str) -> Iterator[None]:
    """Turn whatever is raised inside into an OSError if the disk of ``folder`` is full: torch and safetensors do not say so."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) or not _is_full(Path(folder)):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error


@contextlib.contextmanager
def _full_disk_refused(path: Path) -> Iterator[None]:
    """Turn a full disk, while ``path`` is being written, into a `UserError`."""
    try:
        with full_disk_told(path.parent):
            yield
    except OSError as error:
        if error.errno in FULL:
            raise UserError(f"{path}: {DISK_FULL}") from None
        raise


@contextlib.contextmanager
def full_disk_interrupts(work: Path) -> Iterator[None]:
    """Turn a full disk, while a run works in ``work``, into a `UserError` that says how it goes on."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise UserError(f"{work}: the disk is full; free some space, then give the same command again to go on") from None


def _is_full(folder: Path) -> bool:
    """Does a megabyte no longer fit? Tried, not asked: a quota does not show in the free space."""
    try:
        with _part(folder / "room") as probe:
            probe.write_bytes(bytes(2**20))
    except OSError as error:
        return error.errno in FULL
    return False


@contextlib.contextmanager
def new_file(path: Path | str, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a path beside ``path``, to be written, that becomes ``path`` on success and vanishes on failure.

    Raises `UserError` if ``path`` exists and ``overwrite`` is not given, or cannot be written, and when the disk is full.
    """
    path = require_new(path, overwrite=overwrite)
    if path.is_dir():
        raise UserError(f"{path}: is a directory; give the name of a file")
    with _new_part(path) as part, _full_disk_refused(path):
        yield part
        os.replace(part, path)


@contextlib.contextmanager
def new_directory(path: Path | str, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a staging directory beside ``path`` that becomes ``path`` on success and vanishes on failure.

    An existing ``path`` is kept until the new one is complete. A full disk becomes a `UserError`.
    """
    path = require_new_directory(path, overwrite=overwrite)
    with _new_part(path, directory=True) as staging, _full_disk_refused(path):
        yield staging
        while not _renamed(staging, path):
            require_new_directory(path, overwrite=overwrite)  # again: another process may have been quicker
            with contextlib.suppress(FileNotFoundError):  # or has moved it away
                os.rename(path, _hidden(path, "old"))
        for old in _all_hidden(path, "old"):  # those of killed processes too: the new one stands now
            _remove(old)


def remove_directory(path: Path) -> None:
    """Remove a directory, which is whole until it is gone; what stays if this is killed then is `has_rests`."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(path, _hidden(path, "old"))
    for old in _all_hidden(path, "old"):
        _remove(old)


def has_rests(path: Path) -> bool:
    """Are there rests of an earlier ``path``, which was being removed?"""
    return bool(_all_hidden(path, "old"))


def _renamed(staging: Path, path: Path) -> bool:
    """Make ``staging`` ``path``; False where that is taken, but by an empty directory."""
    try:
        os.rename(staging, path)
    except OSError as error:
        if error.errno not in TAKEN:
            raise
        return False
    return True


@contextlib.contextmanager
def _new_part(path: Path, *, directory: bool = False) -> Iterator[Path]:
    """`_part` of a ``path`` whose directory need not exist; raises `UserError` where nothing can be created."""
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = stack.enter_context(_part(path, directory=directory))
        except OSError as error:
            raise UserError(f"{path}: cannot be created ({error.strerror})") from None
        yield part


@contextlib.contextmanager
def _part(path: Path, *, directory: bool = False) -> Iterator[Path]:
    """An empty file or directory beside ``path``, locked, and removed at the end if it is still there.

    Those that killed processes left beside ``path`` are removed first.
    """
    for left in _all_hidden(path, "part"):
        with _locked(left) as dead:
            if dead:
                _remove(left)
    while True:
        part = _hidden(path, "part")
        part.mkdir() if directory else part.touch(exist_ok=False)
        with _locked(part, wait=True):
            if not os.path.lexists(part):  # before it was locked another process has taken it for left behind
                continue
            try:
                yield part
            finally:
                _remove(part)
            return


@contextlib.contextmanager
def _locked(path: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold the lock of an existing file or directory; False where another process has it, or there are no locks.

    With ``wait`` until the other has given it back.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # it has just been renamed or removed
        yield False
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        locked = True
    except (OSError, AttributeError):
        locked = False
    try:
        yield locked
    finally:
        os.close(descriptor)


def _hidden(path: Path, kind: str) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.{kind}")


def _all_hidden(path: Path, kind: str) -> list[Path]:
    """All names that `_hidden` has given beside ``path``."""
    return list(path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}.{kind}"))


def _remove(path: Path) -> None:
    """Remove a file or a directory; one that is gone is no mistake."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
