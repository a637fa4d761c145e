"""Writes what a stage has made: a fused checkpoint of the same layout, in which only what moved is written anew.

Weight files that hold nothing that moved are hard links to the source's where the file system allows it, so a gate stage
costs the disk next to nothing and leaves the specialists' weights as they were, bit for bit. All other files are copied:
people edit them, and an edit must not reach back into the source. But the code is that which has trained: the source's may be
older, and wrong for the transformers of today.
"""

from __future__ import annotations

import errno
import filecmp
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch

from ultrafuser.io import new_directory
from ultrafuser.model.companions import write_code
from ultrafuser.model.safetensors_stream import write_file
from ultrafuser.model.tensors import cast, from_memory, read_header

HISTORY = "training"  # the directory in a trained checkpoint that says how it was trained
NO_LINK = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EACCES, errno.ENOSYS)


def write_result(source: Path, moved: dict[str, torch.Tensor], target: Path) -> None:
    """Write ``source`` with the tensors ``moved`` in place of its own as ``target``, which appears whole or not at all.

    Every tensor keeps the dtype it has in ``source``. Raises `UserError` on a full disk or a damaged source.
    """
    with new_directory(target) as staging:
        link_tree(source, staging)
        write_code(staging)
        for file in sorted(staging.glob("*.safetensors")):
            tensors = read_header(source / file.name)
            if tensors.keys().isdisjoint(moved):
                continue
            file.unlink()  # a link: writing into it would change the source
            new = {name: cast(from_memory(moved[name]), old.dtype) for name, old in tensors.items() if name in moved}
            write_file(file, {**tensors, **new})


def link_tree(source: Path, target: Path) -> None:
    """Fill the existing directory ``target`` with the files of ``source``: weights linked, others copied.

    Left out are hidden ones and the history of ``source``, which is another's.
    """
    _fill(target, _taken(source))


def is_linked(source: Path, target: Path) -> bool:
    """Is ``target`` what `link_tree` makes of ``source``, and nothing else? Then nobody loses anything if it is made anew."""
    return source.is_dir() and _holds(target, _taken(source))


def _taken(source: Path) -> list[Path]:
    return [path for path in _visible(source) if path.name != HISTORY]  # deeper down that is the name of a specialist


def _visible(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.startswith(".")]


def _fill(target: Path, paths: Iterable[Path]) -> None:
    for path in paths:
        place = target / path.name
        if path.is_dir():
            place.mkdir()
            _fill(place, _visible(path))
        elif path.suffix == ".safetensors":
            _link(path.resolve(), place)
        else:
            shutil.copyfile(path, place)


def _holds(target: Path, paths: Iterable[Path]) -> bool:
    """Does ``target`` hold these files and directories, and no others?"""
    wanted = {path.name: path for path in paths}
    if not target.is_dir() or wanted.keys() != {path.name for path in target.iterdir()}:
        return False
    return all(
        _holds(target / name, _visible(path)) if path.is_dir() else _same(path, target / name) for name, path in wanted.items()
    )


def _same(one: Path, other: Path) -> bool:
    return other.is_file() and (one.samefile(other) or filecmp.cmp(one, other, shallow=False))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        shutil.copyfile(source, target)
