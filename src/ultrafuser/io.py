"""Files and directories that appear whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich import filesize

from ultrafuser.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT)
DISK_FULL = "the disk is full; nothing was written. Free some space or choose another output"


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` (UTF-8) to ``path`` atomically: a reader sees the old file or the new one, never a part."""
    path = Path(path)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with open(part, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file; a missing or broken one is a `UserError` that names it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None


def require_new(path: Path | str, *, overwrite: bool = False) -> Path:
    """Return ``path`` if it may be written: absent, an empty directory, or ``overwrite`` given. Raises `UserError`."""
    path = Path(path)
    if path.exists() and not overwrite and not (path.is_dir() and not any(path.iterdir())):
        raise UserError(f"{path}: already exists; choose another output or give --overwrite")
    return path


def require_space(path: Path | str, needed: int) -> None:
    """Raise `UserError` when the disk that will hold ``path`` has fewer than ``needed`` bytes free."""
    folder = Path(path).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
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


def _is_full(folder: Path) -> bool:
    """Does a megabyte no longer fit? Tried, not asked: a quota does not show in the free space."""
    probe = folder / f".{uuid.uuid4().hex[:8]}.part"
    try:
        probe.write_bytes(bytes(2**20))
    except OSError as error:
        return error.errno in FULL
    finally:
        probe.unlink(missing_ok=True)
    return False


@contextlib.contextmanager
def new_file(path: Path | str, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a path beside ``path``, to be written, that becomes ``path`` on success and vanishes on failure.

    Raises `UserError` if ``path`` exists and ``overwrite`` is not given, or cannot be written, and when the disk is full.
    """
    path = require_new(path, overwrite=overwrite)
    if path.is_dir():
        raise UserError(f"{path}: is a directory; give the name of a file")
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
    except OSError as error:
        raise UserError(f"{path}: cannot be created ({error.strerror})") from None
    try:
        with _full_disk_refused(path):
            yield part
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def new_directory(path: Path | str, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a staging directory beside ``path`` that becomes ``path`` on success and vanishes on failure.

    An existing ``path`` is kept until the new one is complete. A full disk becomes a `UserError`.
    """
    path = require_new(path, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
        staging.mkdir()
    except OSError as error:
        raise UserError(f"{path}: cannot be created ({error.strerror})") from None
    try:
        with _full_disk_refused(path):
            yield staging
            if path.exists():
                old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
                os.rename(path, old)
                os.rename(staging, path)
                shutil.rmtree(old) if old.is_dir() else old.unlink()
            else:
                os.rename(staging, path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
