"""The evaluation for readers: results.md, and report.html, one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrafuser import pages
from ultrafuser.errors import plural
from ultrafuser.evaluate.catalogue import TaskInfo
from ultrafuser.evaluate.directory import REPORT_FILES
from ultrafuser.evaluate.results import Results
from ultrafuser.evaluate.score import TaskScore
from ultrafuser.io import write_text

TITLE = "Benchmarks"
SHOWN = 2  # examples of each kind, per model and task
LONGEST = 2000  # characters of a text that are shown
THOUGHTS = "What a model thinks (`<think>..</think>`) is left out before its answer is read."
KINDS = ("right", "wrong", "unparsed", "not asked")


@dataclass(frozen=True)
class Example:
    """One item to show; ``kind`` is one of `KINDS`, ``label`` says how it scored, ``judge`` what a judge said."""

    model: str
    kind: str
    label: str
    question: str
    answer: str
    read: str
    target: str
    judge: str


def write_reports(results: Results) -> None:
    """Write ``results.md`` and ``report.html`` into the evaluation's directory."""
    out = results.settings.out
    for name, text in zip(REPORT_FILES, (to_markdown(results), to_html(results)), strict=True):
        write_text(out / name, text)


def to_markdown(results: Results) -> str:
    """The tables, how each answer was read, what failed, and how it was made."""
    blocks = [f"# {TITLE}"]
    blocks += ["\n\n".join([f"## {table.title}", table.to_markdown(), *table.remarks()]) for table in results.tables()]
    blocks += ["±: one standard error over the items. Bold: the best model of each column."]
    blocks += _bullets("Failed", _failed(results))
    blocks += [f"## Task by task\n\n{THOUGHTS}"]
    for task in results.tasks:
        lines = [f"### {task.title}", "", f"{task.extraction} Metric: {task.metric}.", ""]
        blocks.append("\n".join(lines + [f"- {line}" for line in _score_lines(results, task)]))
    blocks += _bullets("Models", [f"{model}: {note}" for model, notes in results.notes.items() for note in notes])
    blocks += _bullets("How this was made", [f"{name}: {value}" for name, value in results.facts.items()])
    return "\n\n".join(blocks) + "\n"


def _bullets(title: str, lines: Sequence[str]) -> list[str]:
    return ["\n".join([f"## {title}", "", *(f"- {line}" for line in lines)])] if lines else []


def _failed(results: Results) -> list[str]:
    return [f"{model}, {task}: {failure.reason}" for (model, task), failure in results.failures.items()]


def _score_lines(results: Results, task: TaskInfo) -> Iterator[str]:
    for model in results.models:
        score = results.scores.get((model, task.name))
        if score is not None:
            yield "; ".join([f"{model}: {score.n} items", *_unreadable(score), f"{score.seconds:.0f} s", *score.notes])


def unreadable(results: Results) -> Iterator[str]:
    """For the terminal: a line for each task on which answers could not be read, with the rule by which they are."""
    for task in results.tasks:
        counts = [f"{model}: {one}" for model, score in _scores_of(results, task).items() for one in _unreadable(score)]
        if counts:
            yield f"{task.name}: {', '.join(counts)}. Rule: {task.extraction}"


def _unreadable(score: TaskScore) -> list[str]:
    return [f"{plural(score.unparsed, 'answer')} unreadable"] if score.unparsed else []


def to_html(results: Results) -> str:
    """The report as HTML text."""
    return pages.render(
        Path(__file__).parent / "templates",
        "benchmarks.html",
        shown=max(1, len(results.specialists)),
        title=TITLE,
        thoughts=THOUGHTS,
        results=results,
        tables=[table.to_dict() for table in results.tables()],
        failed=_failed(results),
        details=[(task, _scores_of(results, task), list(_examples(results, task))) for task in results.tasks],
    )


def _scores_of(results: Results, task: TaskInfo) -> dict[str, TaskScore]:
    return {model: score for model in results.models if (score := results.scores.get((model, task.name))) is not None}


def _examples(results: Results, task: TaskInfo) -> Iterator[Example]:
    """A few items of each kind from every model, the first ones."""
    for model, score in _scores_of(results, task).items():
        taken = dict.fromkeys(KINDS, 0)
        for record in score.records:
            kind = _kind(record)
            taken[kind] += 1
            if taken[kind] <= SHOWN:
                yield _example(model, kind, record)


def _kind(record: Mapping[str, Any]) -> str:
    if record.get("left_out"):
        return "not asked"
    share = _share(record)
    asked = len(record["prompt"]) if isinstance(record.get("prompt"), list) else 1
    if record.get("unparsed", 0) >= asked or share is None:
        return "unparsed"
    return "right" if share >= 0.5 else "wrong"


def _share(record: Mapping[str, Any]) -> float | None:
    """How right an item is, 0 to 1; a mark from 1 to 10 counts as a tenth of it; None if it could not be judged."""
    if "marks" in record:
        marks = [mark for mark in record["marks"] if mark is not None]
        return sum(marks) / len(marks) / 10 if marks else None
    share: float | None = record.get("score", record.get("win"))
    return share


def _example(model: str, kind: str, record: Mapping[str, Any]) -> Example:
    share, read = _share(record), record.get("read", "")
    exact = "" if share in (0.0, 1.0, None) else f" ({share:.2f})"
    reason = read.get("reason", "") if isinstance(read, Mapping) and kind == "wrong" else ""
    return Example(
        model=model,
        kind=kind,
        label=kind + exact + f": {reason}" * bool(reason),
        question=_text(record.get("question") or record.get("prompt", "")),
        answer=_text(record["answer"]),
        read=_text(read),
        target=_text(record.get("target", record.get("reference", ""))),
        judge="\n".join(_text(verdict["said"]) for verdict in record.get("verdicts", ())),
    )


def _text(value: Any) -> str:
    """A field of a record for a reader: lists a line each, long ones cut."""
    if isinstance(value, Mapping):
        value = value.get("answer")
    lines = [_text(one) for one in value] if isinstance(value, (list, tuple)) else [str("" if value is None else value)]
    text = "\n".join(lines)
    return text if len(text) <= LONGEST else text[:LONGEST] + " …"
