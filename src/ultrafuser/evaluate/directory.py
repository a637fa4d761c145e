"""The directory of an evaluation: whose results it holds, the answers kept there, and one evaluation at a time in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ultrafuser.errors import UserError
from ultrafuser.evaluate.kept import KeptAnswers
from ultrafuser.io import make_directory, read_json
from ultrafuser.lock import only_one
from ultrafuser.train.claim import differences

RESULTS_FILE, REPORT_FILES = "results.json", ("results.md", "report.html")
SAMPLES = "samples"  # the single items, in MODEL/TASK.jsonl
ANSWERS_FILE, TRACEBACKS_FILE = "answers.sqlite", "failures.log"
TAKEN_OUT = ".specialists"  # of a fused model, while they are judged; hidden: a run has specialists/ of its own


def prepare(out: Path, question: Mapping[str, Any], *, overwrite: bool) -> None:
    """Make the directory. Raises `UserError` if it holds another evaluation's results and may not be overwritten, or others'."""
    make_directory(out)
    _require_ours(out, overwrite=overwrite)
    if not overwrite and (changed := _changed(out, question)):
        raise UserError(
            f"{out}: holds the results of another evaluation ({changed[0]}); choose another --out, or give --overwrite "
            "(answers that are there are used again)"
        )


@contextmanager
def claimed(out: Path, question: Mapping[str, Any]) -> Iterator[KeptAnswers]:
    """The answers kept in ``out``, for one evaluation at a time; the results of another evaluation are removed.

    Raises `UserError` while another is going on there, and where nothing can be written.
    """
    with only_one("evaluation", out, inside=True), closing(KeptAnswers(out / ANSWERS_FILE)) as kept:
        shutil.rmtree(out / TAKEN_OUT, ignore_errors=True)  # what a killed evaluation left
        if _is_anothers(out, question):
            shutil.rmtree(out / SAMPLES, ignore_errors=True)
            for name in (*REPORT_FILES, TRACEBACKS_FILE, RESULTS_FILE):
                (out / name).unlink(missing_ok=True)
        yield kept


def _require_ours(out: Path, *, overwrite: bool) -> None:
    """Raise `UserError` if the results in ``out`` are not of an evaluation: nobody said that such a file may go."""
    file = out / RESULTS_FILE
    try:
        results = read_json(file) if file.exists() else {"question": {}}
    except UserError:
        if not overwrite:
            raise
        return
    if not isinstance(results, dict) or not isinstance(results.get("question"), dict):
        raise UserError(f"{file}: is not from 'ultrafuser eval'; choose another --out")


def _is_anothers(out: Path, question: Mapping[str, Any]) -> bool:
    try:
        return bool(_changed(out, question))
    except UserError:  # its results cannot be read, and it was said that they may go
        return True


def _changed(out: Path, question: Mapping[str, Any]) -> list[str]:
    """In what the question of the results in ``out`` is another; nothing where there are none."""
    file = out / RESULTS_FILE
    return differences(read_json(file)["question"], question) if file.exists() else []
