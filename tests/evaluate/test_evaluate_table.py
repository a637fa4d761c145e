"""The score table's derived cells and its three renderings."""

from __future__ import annotations

import json
import math

import pytest
from rich.console import Console

from ultrafuser.evaluate.table import BEST, MEAN, ScoreTable
from ultrafuser.intervals import Interval, wilson


def made(**settings) -> ScoreTable:
    table = ScoreTable("accuracy", ["text", "code"], specialists=["a", "b"], **settings)
    for model, *scores in [("base", 0, 0), ("a", 90, 10), ("b", 20, 80), ("fused", 92, 80)]:
        for domain, right in zip(table.domains, scores, strict=True):
            table.add(model, domain, wilson(right, 100))
    return table


def test_best_specialist_row_and_mean():
    """Base and fused rows must not count as specialists; the row stands after the last specialist; means are of its own cells."""
    rows = made().rows()
    assert list(rows) == ["base", "a", "b", BEST, "fused"]
    assert [rows[BEST][column].value for column in ("text", "code", MEAN)] == pytest.approx([0.9, 0.8, 0.85])
    assert made(higher_is_better=False).rows()[BEST]["text"].value == pytest.approx(0.2)


def test_mean_interval_is_that_of_independent_scores():
    """With symmetric intervals the mean's half width is sqrt(sum of squares)/n: catches averaging the ends."""
    table = ScoreTable("loss", ["text", "code", "mixed"], mean_over=["text", "code"], higher_is_better=False)
    for domain, value, half in [("text", 1.0, 0.3), ("code", 2.0, 0.4), ("mixed", 9.0, 1.0)]:
        table.add("m", domain, Interval(value, value - half, value + half, 10))
    assert table.rows()["m"][MEAN] == Interval(1.5, pytest.approx(1.25), pytest.approx(1.75), 20)


def test_missing_cells():
    """A model without all domains gets no mean, which would not be comparable, and the table still renders."""
    table = made()
    table.add("partial", "text", wilson(50, 100))
    assert MEAN not in table.rows()["partial"]
    assert table.to_markdown().splitlines()[-1] == "| partial | 0.50 (0.40–0.60) | – | – |"
    with pytest.raises(ValueError, match="not a column"):
        table.add("fused", "maths", wilson(1, 2))


def test_what_is_in_the_mean_is_told():
    """A mean over some columns only must say which it leaves out; one over all must say nothing."""
    assert made().remarks() == []
    assert made(mean_over=["text"]).remarks() == []  # no mean at all
    table = ScoreTable("loss", ["text", "code", "mixed"], mean_over=["text", "code"])
    assert table.remarks() == table.to_dict()["remarks"] == ["mean: without mixed"]


def test_nobody_is_best_where_all_are_alike():
    """A column of equal scores all in bold tells nothing; the score of a single model stays bold."""
    table = made()
    table.domains = ["text", "code", "maths"]
    for model in ("base", "a", "b", "fused"):
        table.add(model, "maths", wilson(0, 100))
    assert "maths" not in table.best() and table.to_markdown().count("**0.00**") == 0
    single = ScoreTable("accuracy", ["text"])
    single.add("a", "text", wilson(1, 2))
    assert single.best() == {"text": 0.5}


def test_markdown():
    """Ties in what is shown are all bold, the derived row never is."""
    lines = made().to_markdown().splitlines()
    assert lines[0] == "| model | text | code | mean |"
    assert lines[4].startswith("| b | 0.20 (0.13–0.29) | **0.80** (0.71–0.87) |")
    assert lines[5].startswith(f"| *{BEST}* | 0.90 (")
    assert lines[6].count("**") == 6


def test_names_of_columns_show_as_they_are():
    """A domain is called what its user likes: markup must not vanish from the terminal, a bar not make two columns of one."""
    table = ScoreTable("loss [nats]", ["[code]", "a|b"])
    for domain in table.domains:
        table.add("m", domain, wilson(1, 2))
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table.to_rich())
    shown = console.export_text()
    assert "[code]" in shown and "a|b" in shown and "loss [nats]" in shown
    assert table.to_markdown().splitlines()[0] == "| model | [code] | a\\|b | mean |"


def test_terminal_and_json():
    """Names with markup show as they are; unknown ends are null in JSON, which has no NaN."""
    table = made()
    table.add("[bold]x", "text", Interval(0.5, math.nan, math.nan, 1))
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table.to_rich())
    shown = console.export_text()
    assert "[bold]x" in shown and "0.92 ±0.07" in shown
    plain = json.loads(json.dumps(table.to_dict(), allow_nan=False))
    assert plain["rows"][-1]["cells"]["text"] == {"value": 0.5, "low": None, "high": None, "n": 1}
    assert plain["best"] == {"text": 0.92, "code": 0.8, "mean": 0.86}
