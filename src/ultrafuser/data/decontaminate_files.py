"""`ultrafuser decontaminate`: training files without the examples that share a 13-gram with test data (paper, section 3).

What is compared and what counts as shared stands in `ultrafuser.decontaminate`: prompts and reference answers on the test side,
every message by itself on the training side. Written are, whole or not at all,

    FILE                    the examples that are left, in the order and the format that they came in
    FILE.overlaps.jsonl     for each dropped example and test set: where, the shared words, and in which test text
    FILE.checked.json       what FILE was checked against, and its hash: training looks for this

One pass, whose memory does not depend on the sources' size; over three thousand examples a second on one core.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import ultrafuser
from ultrafuser.data.conversations import read_messages
from ultrafuser.data.rows import local_path, read_rows
from ultrafuser.decontaminate import NgramIndex, Overlap, sidecar, write_checked
from ultrafuser.errors import UserError
from ultrafuser.io import is_file, new_file, require_new, user_path
from ultrafuser.row_files import Write, json_lines, parquet
from ultrafuser.schema import LINES_SUFFIXES
from ultrafuser.testsets import TEST_SETS, find_file, test_texts


@dataclass
class SetCounts:
    """Of one test set: its texts, how many of them are too short to be looked for, and the examples dropped because of it."""

    texts: int = 0
    too_short: int = 0
    dropped: int = 0


@dataclass(frozen=True)
class Cleaned:
    """What was done. An example that overlaps with two test sets counts in both of them, but once in ``dropped``."""

    out: Path
    examples: int
    dropped: int
    test_sets: dict[str, SetCounts]

    @property
    def report(self) -> Path:
        """Which examples were dropped, and why."""
        return report_path(self.out)

    def table(self) -> Table:
        """A row per test set."""
        table = Table("test set", caption=f"{self.examples:,} examples, {self.dropped:,} dropped", caption_justify="left")
        for title in ("texts", "too short to match", "examples dropped"):
            table.add_column(title, justify="right")
        for name, counts in self.test_sets.items():
            table.add_row(name, f"{counts.texts:,}", f"{counts.too_short:,}", f"{counts.dropped:,}")
        return table


def report_path(out: Path) -> Path:
    """Where the report on the making of ``out`` is."""
    return Path(f"{out}.overlaps.jsonl")


def decontaminate_files(
    sources: Sequence[str],
    out: str | Path,
    *,
    against: Sequence[str],
    data_dir: str | Path | None = None,
    overwrite: bool = False,
) -> Cleaned:
    """Write the examples of ``sources`` that share no 13-gram with the test sets ``against`` to ``out``.

    Args:
        sources: what `read_rows` reads: JSON lines, Parquet, directories, hub datasets; all of them Parquet files or none.
        out: ends in ``.parquet`` if the sources do, else in ``.jsonl`` or ``.jsonl.gz``.
        against: names in `testsets.TEST_SETS`.
        data_dir: where test data are; None means the hub.

    Raises:
        UserError: a source or test set that is missing or broken; an ``out`` that exists, or whose suffix is another; a file
            that is read and would be replaced; no example left. Then nothing is written.
    """
    out = user_path(out)
    for source in sources:
        next(read_rows(source), None)  # a missing or broken one is to be found now, not after the others
    open_out = _writer(sources, out)
    reads = [*_files(sources), *_test_files(against, data_dir)]
    for written in (out, report_path(out), sidecar(out)):
        require_new(written, overwrite=overwrite, inputs=reads)
    index, counts = index_test_sets(against, data_dir)
    examples: Counter[bool] = Counter()  # dropped? -> how many
    with new_file(out, overwrite=overwrite) as part, new_file(report_path(out), overwrite=overwrite) as report_part:
        with open_out(part) as keep, json_lines(report_part) as report:
            for where, row in _with_progress(row for source in sources for row in read_rows(source)):
                overlaps = find_overlaps(index, where, row)
                examples[bool(overlaps)] += 1
                for one in overlaps:
                    counts[one.test_set].dropped += 1
                    report({"where": where, "test_set": one.test_set, "test_text": one.where, "ngram": one.ngram})
                if not overlaps:
                    keep(row)
        _require_some(examples, sources)
    cleaned = Cleaned(out, examples.total(), examples[True], counts)
    _note(cleaned, sources, index)
    return cleaned


def index_test_sets(names: Sequence[str], data_dir: str | Path | None = None) -> tuple[NgramIndex, dict[str, SetCounts]]:
    """The index of all texts of the test sets ``names``, and their numbers."""
    index, counts = NgramIndex(), {name: SetCounts() for name in names}
    for name, count in counts.items():
        for where, text in test_texts(name, data_dir):
            count.texts += 1
            count.too_short += not index.add(text, where, name)
    return index, counts


def find_overlaps(index: NgramIndex, where: str, row: Any) -> list[Overlap]:
    """For each test set that a message of the row shares a gram with, the first such gram."""
    found: dict[str, Overlap] = {}
    for message in read_messages(where, row):
        for one in index.overlaps(message["content"]):
            found.setdefault(one.test_set, one)
    return list(found.values())


def _files(sources: Sequence[str]) -> Iterator[Path]:
    """The local files and directories among ``sources``, and what is in these."""
    for path in map(local_path, sources):
        yield from (path, *path.rglob("*"))


def _test_files(names: Sequence[str], data_dir: str | Path | None) -> Iterator[Path]:
    """The local files of the test sets ``names``."""
    if data_dir is not None:
        files = (find_file(user_path(data_dir), TEST_SETS[name].file) for name in names if name in TEST_SETS)
        yield from filter(None, files)


def _writer(sources: Sequence[str], out: Path) -> Callable[[Path], AbstractContextManager[Write]]:
    """What opens a file of the kind that ``out`` shall be. Raises `UserError` if the sources are of another kind."""
    in_parquet = [source for source in sources if source.endswith(".parquet") and is_file(user_path(source))]
    if len(in_parquet) not in (0, len(sources)):
        other = next(source for source in sources if source not in in_parquet)
        raise UserError(f"{in_parquet[0]} and {other}: Parquet and other files cannot become one file; clean them one by one")
    if in_parquet and out.suffix != ".parquet":
        raise UserError(f"--out {out}: Parquet stays Parquet; give a name that ends in .parquet")
    if in_parquet:
        schema = _common_schema(in_parquet)
        return lambda part: parquet(part, schema)
    if not out.name.endswith(LINES_SUFFIXES):
        raise UserError(f"--out {out}: give a name that ends in one of {', '.join(LINES_SUFFIXES)}")
    return lambda part: json_lines(part, zipped=out.suffix == ".gz")


def _common_schema(sources: Sequence[str]) -> Any:
    import pyarrow.parquet

    schemas = [pyarrow.parquet.read_schema(user_path(source)) for source in sources]
    for source, schema in zip(sources, schemas, strict=True):
        if not schema.equals(schemas[0]):
            raise UserError(f"{source}: has other columns or types than {sources[0]}; clean them one by one")
    return schemas[0]


def _with_progress(rows: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    columns = (TextColumn("Comparing"), BarColumn(), TextColumn("{task.completed:,.0f} examples"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        yield from progress.track(rows)


def _require_some(examples: Counter[bool], sources: Sequence[str]) -> None:
    names = ", ".join(sources)
    if not examples:
        raise UserError(f"{names}: holds no example")
    if not examples[False]:
        raise UserError(
            f"{names}: nothing is left, all {examples[True]:,} examples overlap with test data; is this the test set itself?"
        )


def _note(cleaned: Cleaned, sources: Sequence[str], index: NgramIndex) -> None:
    facts = {
        "examples": cleaned.examples - cleaned.dropped,
        "dropped": cleaned.dropped,
        "sources": list(sources),
        "test_sets": {name: vars(counts) for name, counts in cleaned.test_sets.items()},
        "n": index.n,
        "shortest": index.shortest,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "ultrafuser": ultrafuser.__version__,
    }
    write_checked(cleaned.out, facts)
