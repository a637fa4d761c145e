"""Where conversations come from: JSON lines (plain or gzipped), Parquet, or a dataset of the hub, read row by row.

Implements the input side of "Data and templates". Nothing is judged here: `conversations.py` says what a good row is.
"""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ultrafuser import hub
from ultrafuser.errors import UserError, did_you_mean
from ultrafuser.io import is_directory, is_file, names_beside, user_path
from ultrafuser.schema import DATA_SUFFIXES, names_file


def read_rows(source: str | Path) -> Iterator[tuple[str, Any]]:
    """Yield ``(where, row)`` of a file, a directory or a hub dataset; ``where`` is like ``"train.jsonl line 12"``.

    A row is the undecoded bytes of one line for JSON lines, else the value itself. What is no local path is a hub dataset,
    ``"owner/name"`` or ``"owner/name@revision"``; ``":split"`` after it, or after a folder, picks a split other than ``train``.
    Raises `UserError` when the source cannot be found or read.
    """
    path = user_path(source)
    if is_file(path):
        if not path.name.endswith(DATA_SUFFIXES):
            raise UserError(f"{source}: unknown kind of data file; give one that ends in {', '.join(DATA_SUFFIXES)}")
        return _parquet_rows(path) if path.suffix == ".parquet" else _json_lines(path)
    name, split = _name_and_split(path)
    if not str(source):
        raise UserError("an empty name of data is given; give a file, a directory or a dataset of the hub")
    if is_file(name):
        raise UserError(f"{source}: a file has no splits; give {name}")
    if not is_directory(name) and (isinstance(source, Path) or names_file(str(source))):
        raise UserError(f"{source}: no such file or directory{did_you_mean(path.name, names_beside(path))}")
    return _dataset_rows(name, split)


def local_path(source: str | Path) -> Path:
    """The file or directory that ``source`` is read from; a path where there is nothing for a dataset of the hub."""
    path = user_path(source)
    return path if is_file(path) else Path(_name_and_split(path)[0])


def _name_and_split(path: Path) -> tuple[str, str]:
    name, _, split = (str(path), "", "") if is_directory(path) else str(path).partition(":")
    return name, split or "train"


def _json_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            lines = ((number, line) for number, line in enumerate(file, start=1) if line.strip())
            for place, (number, line) in enumerate(lines):
                if place == 0 and line.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
                    raise UserError(f"{path}: this is one array; write one object a line (jq -c '.[]' does that)")
                yield f"{path} line {number}", line
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({_reason(error)}); is the file complete?") from None


def _parquet_rows(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path} row {number}", row
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(f"{path}: cannot be read as Parquet ({_reason(error)}); is the file complete?") from None


def _dataset_rows(name: str, split: str) -> Iterator[tuple[str, Any]]:
    """Rows of a hub dataset, of a directory that ``save_to_disk`` wrote, or of a directory of data files."""
    import datasets

    try:
        if any(is_file(Path(name) / file) for file in ("dataset_dict.json", "state.json")):
            loaded = datasets.load_from_disk(name)
            data = _split(name, loaded, split) if isinstance(loaded, datasets.DatasetDict) else loaded
        elif is_directory(name):
            with hub.bars_on_terminals_only(datasets):
                data = datasets.load_dataset(name, split=split)
        else:
            data = hub.load_dataset(name, split=split)
    except UserError:
        raise
    except Exception as error:  # the loaders raise whatever their network, cache and parser layers do
        raise UserError(f"{name}: cannot be loaded as a dataset with split '{split}' ({hub.reason(error)})") from None
    for number, row in enumerate(data, start=1):
        yield f"{name} ({split}) row {number}", row


def _split(name: str, splits: Mapping[str, Any], split: str) -> Any:
    if split not in splits:
        raise UserError(f"{name}: has no split '{split}'{did_you_mean(split, splits)} (it has: {', '.join(splits)})")
    return splits[split]


def _reason(error: Exception) -> str:
    """What an error says, without the path, which has been named, and on one line."""
    text = getattr(error, "strerror", None) or str(error)
    return next(iter(text.splitlines()), type(error).__name__).rstrip(".")
