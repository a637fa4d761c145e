"""Writes rows as `data.rows.read_rows` yields them, one by one: JSON lines, plain or gzipped, or Parquet.

Lines that were read as bytes are written as they were. Gzip notes neither a name nor a time, so equal rows give equal files.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Write = Callable[[Any], None]
ROW_GROUP = 4096  # rows of a Parquet file that are in memory at once


@contextmanager
def json_lines(path: Path, *, zipped: bool = False) -> Iterator[Write]:
    """Yield the function that writes a row to the new file ``path``."""
    with open(path, "wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) if zipped else raw as file:

        def write(row: Any) -> None:
            file.write(_line(row))

        yield write


def _line(row: Any) -> bytes:
    if isinstance(row, bytes):
        return row if row.endswith(b"\n") else row + b"\n"
    return json.dumps(row, ensure_ascii=False, default=str).encode() + b"\n"


@contextmanager
def parquet(path: Path, schema: Any) -> Iterator[Write]:
    """Yield the function that writes a row to the new Parquet file ``path`` with the Arrow schema ``schema``."""
    import pyarrow
    import pyarrow.parquet

    rows: list[Any] = []
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:

        def write(row: Any) -> None:
            rows.append(row)
            if len(rows) == ROW_GROUP:
                flush()

        def flush() -> None:
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
            rows.clear()

        yield write
        flush()
