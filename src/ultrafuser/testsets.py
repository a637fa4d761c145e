"""The test data of the paper's benchmarks, from a local directory or from the hub, always in one layout (issue 3, "Data").

A local directory holds one gzipped or plain JSON-lines file per benchmark, ``DIR/eval/FILE.jsonl.gz``; without one the data
come from the hub (`testsets_hub.py` says which datasets and what becomes of their fields). Either way a benchmark is a list of
records that have at least ``id`` and the fields that `TEST_SETS` names. Nothing here needs torch or lm-evaluation-harness.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ultrafuser import hub
from ultrafuser.errors import UserError, did_you_mean
from ultrafuser.io import is_directory, is_file, parse_json, read_json, user_path
from ultrafuser.testsets_hub import HUB

Record = dict[str, Any]


@dataclass(frozen=True)
class TestSet:
    """One benchmark's data: its local file (without suffix), the fields that scoring needs, and the texts of a record.

    ``texts`` are the fields that must not have been trained on: prompts, and answers where they are long.
    """

    file: str
    fields: tuple[str, ...]
    texts: tuple[str, ...]


# Fields that are lists or may be; all others are texts.
_LISTS = ("choices", "choice_labels", "mc2_choices", "mc2_labels", "test_list", "turns")
_ANYTHING = ("id", "reference")
_SOLVED = ("prompt", "response", "answer")
_CHOICES = ("prompt", "question", "choices", "choice_labels", "label")
_PROGRAM = ("prompt", "response", "tests", "entry_point")
TEST_SETS: Mapping[str, TestSet] = {
    "gsm8k": TestSet("gsm8k_test", _SOLVED, ("prompt", "response")),
    "math": TestSet("math500", _SOLVED, ("prompt", "response")),
    "sat_math": TestSet("agieval_sat_math", _CHOICES, ("prompt", "response")),
    "aqua": TestSet("agieval_aqua_rat", _CHOICES, ("prompt", "response")),
    "humaneval": TestSet("humaneval_instruct_derived", (*_PROGRAM, "context", "completion_prefix"), ("prompt", "response")),
    "mbpp": TestSet("mbpp", (*_PROGRAM, "context", "completion_prefix", "test_list"), ("prompt", "response")),
    "truthfulqa": TestSet("truthfulqa", ("prompt", "mc2_choices", "mc2_labels"), ("prompt", "mc2_choices")),
    "alpaca_eval": TestSet("alpaca_eval", ("prompt", "reference_text_davinci_003", "reference_gpt4_1106_preview"), ("prompt",)),
    "mt_bench": TestSet("mt_bench", ("turns", "category", "reference"), ("turns",)),
}


def load_test_set(name: str, data_dir: str | Path | None = None) -> list[Record]:
    """The records of one benchmark, in the layout of the local files also when they come from the hub.

    Args:
        name: a key of `TEST_SETS`.
        data_dir: a directory with ``eval/FILE.jsonl.gz`` (or ``.jsonl``, or without ``eval/``); None means the hub.

    Raises:
        UserError: unknown name, missing, empty or broken file, a record that lacks a field or has one of another type, or a hub
            that cannot be reached.
    """
    if name not in TEST_SETS:
        raise UserError(f"unknown test set '{name}'{did_you_mean(name, TEST_SETS)} (known: {', '.join(TEST_SETS)})")
    return list(_LOADER.get()(name, None if data_dir is None else user_path(data_dir)))


@contextmanager
def loaded_once() -> Iterator[None]:
    """Inside of ``with`` every test set is loaded once, however often it is asked for."""
    token = _LOADER.set(cache(_load))
    try:
        yield
    finally:
        _LOADER.reset(token)


def test_texts(name: str, data_dir: str | Path | None = None) -> Iterator[tuple[str, str]]:
    """Yield ``(where, text)`` for every text that must not be in training data; ``where`` is like ``"math math500-3"``."""
    for record in load_test_set(name, data_dir):
        for field in TEST_SETS[name].texts:
            value = record.get(field) or []
            for text in [value] if isinstance(value, str) else value:
                yield f"{name} {record['id']}", text


# By their names pytest would take these two for tests wherever a test module imports them.
test_texts.__test__ = False  # type: ignore[attr-defined]
TestSet.__test__ = False  # type: ignore[attr-defined]


def find_file(data_dir: Path, file: str) -> Path | None:
    """The file called ``file`` (without suffix) of a data directory: in ``eval/`` or beside it, gzipped or plain."""
    places = (data_dir / folder / f"{file}{end}" for folder in ("eval", ".") for end in (".jsonl.gz", ".jsonl"))
    return next((path for path in places if is_file(path)), None)


def read_records(path: Path, fields: tuple[str, ...] = ()) -> Iterator[Record]:
    """The records of a file of test data. Raises `UserError` if it is broken, or a record has no ``id`` or not all ``fields``."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _record(line, f"{path} line {number}", fields)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: cannot be read ({error}); is the file complete?") from None


def _load(name: str, data_dir: Path | None) -> list[Record]:
    return _from_hub(name) if data_dir is None else _from_directory(name, data_dir)


_LOADER: ContextVar[Callable[[str, Path | None], list[Record]]] = ContextVar("loader of test sets", default=_load)


def _from_directory(name: str, data_dir: Path) -> list[Record]:
    if not is_directory(data_dir):
        raise UserError(f"{data_dir}: no such directory of test data; leave it out to take '{name}' from the hub")
    path = find_file(data_dir, TEST_SETS[name].file)
    if path is None:
        wanted = data_dir / "eval" / f"{TEST_SETS[name].file}.jsonl.gz"
        raise UserError(f"{wanted}: no such file; the data of '{name}' are looked for there (or as .jsonl, or without eval/)")
    records = list(read_records(path, TEST_SETS[name].fields))
    if not records:
        raise UserError(f"{path}: holds no record; is the file complete?")
    return records


def _record(line: bytes, where: str, fields: tuple[str, ...]) -> Record:
    try:
        record = parse_json(line)
    except ValueError as error:
        raise UserError(f"{where}: not valid JSON ({error})") from None
    missing = [field for field in ("id", *fields) if field not in record] if isinstance(record, dict) else ["id"]
    if missing:
        raise UserError(f"{where}: the field '{missing[0]}' is missing; is this another version of the data?")
    for field in fields:
        kind = list if field in _LISTS else str
        if field not in _ANYTHING and not isinstance(record[field], kind):
            wanted = "a list" if kind is list else "a text"
            raise UserError(f"{where}: the field '{field}' is not {wanted}; is this another version of the data?")
    return record


def _from_hub(name: str) -> list[Record]:
    try:
        parts = [_hub_rows(part) for part in HUB[name].parts]
    except Exception as error:  # the loader raises whatever its network, cache and parser layers do
        raise _not_loaded(name, hub.reason(error)) from None
    try:
        records = HUB[name].convert(parts)
    except Exception as error:  # a row of another form breaks the conversion anywhere
        what = f"no field {error}" if isinstance(error, KeyError) else error
        raise _not_loaded(name, f"its rows are not as they were ({what})") from None
    if not records:
        raise _not_loaded(name, "it holds no record")
    return records


def _not_loaded(name: str, reason: str) -> UserError:
    part = HUB[name].parts[0]
    place = part.get("given") or part["repo_id"]
    return UserError(f"{name}: cannot be loaded from the hub ({place}: {reason}); give a local directory of test data")


def _hub_rows(part: dict[str, Any]) -> list[Any]:
    """The rows of one part of a `HubSource`."""
    from huggingface_hub import hf_hub_download, utils

    if "filename" not in part:
        return list(hub.load_dataset(**part))
    with hub.bars_on_terminals_only(utils):
        return list(read_json(hf_hub_download(**part)))
