"""The score table: models down, domains or tasks across, an interval in every cell.

Two things are derived and never typed in: the row of the best specialist in each column (the paper's bar to reach) and the mean
column. The table renders to the terminal (rich), to Markdown, and to a dictionary for JSON, from which the HTML report draws it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from ultrafuser.intervals import Interval
from ultrafuser.schema import MEAN

BEST = "best specialist per domain"


@dataclass
class ScoreTable:
    """Scores of several models on several domains (or tasks).

    Args:
        title: what is measured, for example ``accuracy`` or ``held-out loss (nats per answer token)``.
        domains: the columns, in order.
        specialists: names of the rows that are single specialists; after the last of them comes the derived row ``best_row``.
        mean_over: the domains that the mean column averages (None: all of them); fewer than two give no mean column.
        higher_is_better: False for losses.
        digits: decimals shown.
        best_row: what the derived row is called.
        references: rows from elsewhere, shown for comparison only: they never count as best, nor as specialists.
        spread: what the cells' ends are: a 95% interval, shown as it is, or one standard error, shown with ±.
        full: the value that is a full bar in HTML.
        missing: what to say, by model and domain, in place of a score that there should be, such as ``failed``.
    """

    title: str
    domains: Sequence[str]
    specialists: Sequence[str] = ()
    mean_over: Sequence[str] | None = None
    higher_is_better: bool = True
    digits: int = 2
    best_row: str = BEST
    references: Sequence[str] = ()
    spread: Literal["interval", "error"] = "interval"
    full: float = 1.0
    missing: dict[tuple[str, str], str] = field(default_factory=dict)
    scores: dict[str, dict[str, Interval]] = field(default_factory=dict)

    def add(self, model: str, domain: str, score: Interval) -> None:
        """Put one score into the table; rows appear in the order in which they are first named. Raises ValueError."""
        if domain not in self.domains:
            raise ValueError(f"domain {domain!r} is not a column of {self.title!r}: {', '.join(self.domains)}")
        self.scores.setdefault(model, {})[domain] = score

    @property
    def columns(self) -> list[str]:
        """The domains, and `MEAN` if it averages at least two of them."""
        return [*self.domains, *([MEAN] if len(self._averaged()) > 1 else [])]

    def rows(self) -> dict[str, dict[str, Interval]]:
        """All rows with their derived cells: ``{model: {column: Interval}}``. A cell without a score is absent."""
        rows: dict[str, dict[str, Interval]] = {}
        last = max((list(self.scores).index(name) for name in self.specialists if name in self.scores), default=-1)
        for index, (model, cells) in enumerate(self.scores.items()):
            rows[model] = self._with_mean(cells)
            if index == last:
                rows[self.best_row] = self._with_mean(self._best_specialist())
        return rows

    def best(self) -> dict[str, float]:
        """The best value in a column over the models (derived row and references do not compete), rounded as shown."""
        models = [cells for name, cells in self.rows().items() if self._competes(name)]
        values = {column: [cells[column].value for cells in models if column in cells] for column in self.columns}
        shown = {column: [round(value, self.digits) for value in found] for column, found in values.items()}
        # Where several are all alike, none is the best.
        return {column: self._choose(found) for column, found in shown.items() if len(found) == 1 or len(set(found)) > 1}

    def remarks(self) -> list[str]:
        """What a reader must know beside the table: over which columns the mean is, if not over all."""
        left_out = [domain for domain in self.domains if domain not in self._averaged()]
        return [f"mean: without {', '.join(left_out)}"] if left_out and MEAN in self.columns else []

    def to_rich(self) -> Table:
        """The table for a terminal: best of each column in bold, the longer arm of each interval after it."""
        table = Table(title=escape(self.title), title_justify="left", box=SIMPLE_HEAD)
        table.add_column("model", max_width=28)
        for column in self.columns:
            table.add_column(escape(column), justify="right", overflow="fold")
        for model, cells in self.rows().items():
            texts = [self._show(model, column, cells, "[bold]{}[/bold]", " [dim]±{half}[/dim]") for column in self.columns]
            table.add_row(escape(model), *texts, style="italic" if model == self.best_row else None)
        return table

    def to_markdown(self) -> str:
        """The table in GitHub's Markdown: best of each column in bold, intervals in brackets, standard errors after ±."""
        around = " ({low}–{high})" if self.spread == "interval" else " ±{half}"
        lines = [["model", *map(_in_markdown, self.columns)], ["---"] + ["---:"] * len(self.columns)]
        for model, cells in self.rows().items():
            name = f"*{model}*" if model == self.best_row else _in_markdown(model)
            lines.append([name] + [self._show(model, column, cells, "**{}**", around) for column in self.columns])
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def to_dict(self) -> dict[str, Any]:
        """Everything, derived cells too, as plain JSON values (NaN ends become None)."""
        return {
            "title": self.title,
            "columns": self.columns,
            "higher_is_better": self.higher_is_better,
            "digits": self.digits,
            "spread": self.spread,
            "full": self.full,
            "best": self.best(),
            "remarks": self.remarks(),
            "rows": [
                {
                    "model": model,
                    "derived": model == self.best_row,
                    "reference": model in self.references,
                    "specialist": model in self.specialists,
                    "cells": {column: _plain(cell) for column, cell in cells.items()},
                    "missing": {column: text for (row, column), text in self.missing.items() if row == model},
                }
                for model, cells in self.rows().items()
            ],
        }

    def _show(self, model: str, column: str, cells: dict[str, Interval], strong: str, around: str) -> str:
        cell = cells.get(column)
        if cell is None:
            return self.missing.get((model, column), "–")
        ends = {"low": cell.low, "high": cell.high, "half": max(cell.value - cell.low, cell.high - cell.value)}
        value = f"{cell.value:.{self.digits}f}"
        if self._competes(model) and round(cell.value, self.digits) == self.best().get(column):
            value = strong.format(value)
        if math.isnan(cell.low):
            return value
        return value + around.format(**{name: f"{end:.{self.digits}f}" for name, end in ends.items()})

    def _competes(self, row: str) -> bool:
        return row != self.best_row and row not in self.references

    def _choose(self, values: Sequence[float]) -> float:
        return max(values) if self.higher_is_better else min(values)

    def _averaged(self) -> list[str]:
        return list(self.domains if self.mean_over is None else self.mean_over)

    def _best_specialist(self) -> dict[str, Interval]:
        """The best specialist's cell in every column, but where one of them has no score that it should have."""
        best: dict[str, Interval] = {}
        for domain in self.domains:
            if any((name, domain) in self.missing for name in self.specialists):
                continue
            found = {
                cells[domain].value: cells[domain] for name in self.specialists if domain in (cells := self.scores.get(name, {}))
            }
            if found:
                best[domain] = found[self._choose(list(found))]
        return best

    def _with_mean(self, cells: dict[str, Interval]) -> dict[str, Interval]:
        parts = [cells[domain] for domain in self._averaged() if domain in cells]
        row = {domain: cells[domain] for domain in self.domains if domain in cells}
        # A mean of some of the domains would not be comparable with the other rows'.
        if MEAN in self.columns and len(parts) == len(self._averaged()):
            row[MEAN] = _mean(parts)
        return row


def _in_markdown(name: str) -> str:
    return name.replace("|", "\\|")


def _mean(parts: Sequence[Interval]) -> Interval:
    """Mean of independent estimates: distances to the ends add in quadrature, each side on its own."""
    value = sum(part.value for part in parts) / len(parts)
    below = math.sqrt(sum((part.value - part.low) ** 2 for part in parts)) / len(parts)
    above = math.sqrt(sum((part.high - part.value) ** 2 for part in parts)) / len(parts)
    return Interval(value, value - below, value + above, sum(part.n for part in parts))


def _plain(cell: Interval) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in asdict(cell).items()}
