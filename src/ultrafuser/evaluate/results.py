"""What an evaluation found: every score or why there is none, the tables made of them, and the files that hold it all.

``results.json`` has everything but the single items, which are in ``samples/MODEL/TASK.jsonl``, one JSON object a line. It is
written anew after every task, so whatever ends an evaluation, what was found is there.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ultrafuser.evaluate.catalogue import TaskInfo
from ultrafuser.evaluate.directory import RESULTS_FILE, SAMPLES
from ultrafuser.evaluate.paper import COLUMNS, PAPER
from ultrafuser.evaluate.score import TaskScore
from ultrafuser.evaluate.settings import EvalSettings
from ultrafuser.evaluate.table import ScoreTable
from ultrafuser.intervals import Interval
from ultrafuser.io import write_json, write_text

BEST = "best specialist per task"
FAILED = "failed"


@dataclass(frozen=True)
class Failure:
    """Why a model has no score on a task, in one line."""

    reason: str


@dataclass
class Results:
    """The outcomes of an evaluation.

    Args:
        models: names of the rows, in order.
        tasks: the columns, in order.
        specialists: the rows that the row `BEST` is made of.
        settings: how it was done.
        facts: what is needed to do it again (`facts.run_facts`), and what isolates generated programs.
        question: what was asked of whom: two evaluations with the same one have the same results.
        notes: sentences about a model, by its name.
        outcomes: a score or a failure by model and task.
        finished: is nothing left to be done?
    """

    models: Sequence[str]
    tasks: Sequence[TaskInfo]
    specialists: Sequence[str]
    settings: EvalSettings
    facts: dict[str, str]
    question: dict[str, Any]
    notes: dict[str, list[str]] = field(default_factory=dict)
    outcomes: dict[tuple[str, str], TaskScore | Failure] = field(default_factory=dict)
    finished: bool = False

    @property
    def failures(self) -> dict[tuple[str, str], Failure]:
        """What failed, by model and task."""
        return {place: one for place, one in self.outcomes.items() if isinstance(one, Failure)}

    @property
    def scores(self) -> dict[tuple[str, str], TaskScore]:
        """What did not fail, by model and task."""
        return {place: one for place, one in self.outcomes.items() if isinstance(one, TaskScore)}

    def add(self, model: str, task: TaskInfo, outcome: TaskScore | Failure) -> None:
        """Take in one outcome and write what there is so far."""
        self.outcomes[model, task.name] = outcome
        if isinstance(outcome, TaskScore):
            path = self.samples_file(model, task.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in outcome.records))
        self.write()

    def samples_file(self, model: str, task: str) -> Path:
        """Where the single items of ``model`` on ``task`` are."""
        return self.settings.out / SAMPLES / model / f"{task}.jsonl"

    def tables(self) -> list[ScoreTable]:
        """One table of percentages, and one of marks if there are any."""
        shares = [task for task in self.tasks if task.percent]
        marks = [task for task in self.tasks if not task.percent]
        return [
            self._table(title, tasks, scale)
            for title, tasks, scale in (("Scores in %", shares, 100.0), ("Marks from 1 to 10", marks, 1.0))
            if tasks
        ]

    def _table(self, title: str, tasks: Sequence[TaskInfo], scale: float) -> ScoreTable:
        table = ScoreTable(
            title=title,
            domains=[task.title for task in tasks],
            specialists=self.specialists,
            best_row=BEST,
            references=list(PAPER),
            spread="error",
            full=100.0 if scale == 100 else 10.0,
        )
        for model in self.models:
            table.scores[model] = {}
            for task in tasks:
                outcome = self.outcomes.get((model, task.name))
                if isinstance(outcome, TaskScore):
                    table.add(model, task.title, _cell(outcome, scale))
                elif outcome is not None:
                    table.missing[model, task.title] = FAILED
        # What failed for all, or the paper does not tell, would take away everybody's mean.
        known = {column for cells in table.scores.values() for column in cells}
        if self.settings.paper:
            _add_paper(table, tasks)
            known = {task.title for task in tasks if task.title in known and task.paper_column in COLUMNS} or known
        table.mean_over = [task.title for task in tasks if task.title in known]
        return table

    def to_dict(self) -> dict[str, Any]:
        """Everything but the single items, as JSON values."""
        return {
            "finished": self.finished,
            "facts": self.facts,
            "question": self.question,
            "specialists": list(self.specialists),
            "notes": self.notes,
            "tasks": {task.name: asdict(task) for task in self.tasks},
            "scores": {model: self._outcomes_of(model) for model in self.models},
            "tables": [table.to_dict() for table in self.tables()],
        }

    def _outcomes_of(self, model: str) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for task in self.tasks:
            outcome = self.outcomes.get((model, task.name))
            if isinstance(outcome, Failure):
                found[task.name] = {FAILED: outcome.reason}
            elif outcome is not None:
                values = {name: value for name, value in vars(outcome).items() if name not in ("task", "records")}
                samples = self.samples_file(model, task.name).relative_to(self.settings.out)
                found[task.name] = values | {"standard_error": _number(outcome.standard_error), "samples": str(samples)}
        return found

    def write(self) -> None:
        """Write ``results.json``, atomically."""
        write_json(self.settings.out / RESULTS_FILE, self.to_dict())


def _cell(score: TaskScore, scale: float) -> Interval:
    value, error = scale * score.value, scale * score.standard_error
    return Interval(value, value - error, value + error, score.n)


def _add_paper(table: ScoreTable, tasks: Sequence[TaskInfo]) -> None:
    for row, figures in PAPER.items():
        for task in tasks:
            if task.paper_column in figures:
                table.add(row, task.title, Interval(figures[task.paper_column], math.nan, math.nan, 0))


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
