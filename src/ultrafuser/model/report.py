"""What `ultrafuser check` found, as data and as a table for a terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from ultrafuser.errors import UserError

Status = Literal["ok", "note", "problem"]
STYLES = {"ok": ("ok", "green"), "note": ("note", "yellow"), "problem": ("no", "bold red")}


@dataclass(frozen=True)
class CheckRow:
    """One finding: what it is about, how bad it is (``ok``, ``note``, ``problem``) and a sentence."""

    topic: str
    status: Status
    text: str


@dataclass
class CheckReport:
    """All findings in order; ``ok`` says whether the specialists can be fused."""

    rows: list[CheckRow] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Can they be fused?"""
        return not self.problems

    @property
    def notes(self) -> list[str]:
        """What is good to know but stops nothing."""
        return [row.text for row in self.rows if row.status == "note"]

    @property
    def problems(self) -> list[str]:
        """What makes fusing impossible."""
        return [row.text for row in self.rows if row.status == "problem"]

    def add(self, topic: str, status: Status, text: str) -> None:
        """Append a finding."""
        self.rows.append(CheckRow(topic, status, text))

    def attempt(self, topic: str, step: Callable[[], Any]) -> Any:
        """The value of ``step``, or None and a problem under ``topic`` if it raises `UserError`."""
        try:
            return step()
        except UserError as error:
            self.add(topic, "problem", str(error))
            return None


def render(report: CheckReport) -> Table:
    """The report as a table for a terminal."""
    table = Table("", "about", "finding", title="Can be fused" if report.ok else "Cannot be fused")
    for row in report.rows:
        word, style = STYLES[row.status]
        table.add_row(Text(word, style=style), row.topic, Text(row.text))
    return table
