"""The estimate before a run, compared with the run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from synth_world import Scripted, Writer, domains, make_recipe, run
from typer.testing import CliRunner

from fake_endpoint import FakeEndpoint
from ultrafuser.cli import app
from ultrafuser.endpoints.store import AnswerStore
from ultrafuser.synth.estimate import Row as EstimateRow
from ultrafuser.synth.estimate import Usage, _row, estimate, requests
from ultrafuser.synth.run import dry_run, run_synth


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"domains": {"math": domains(3, 8, 160)["math"] | {"check": {"by": "agreement", "samples": 3}}}, "per_request": 7},
        {"complicated": 0.0, "turns": {"share": 1.0, "number": 1}, "score": {"minimum": 1}},
    ],
)
def test_requests(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Catches a step that is left out of the estimate or counted wrongly: it must lie up to 15% or two requests above the run."""
    recipe, engine = make_recipe(tmp_path / "out", **changes), Scripted(Scores(bad=0.0))
    run(recipe, engine)
    counts, expected = Counter(request.step for request in engine.asked), requests(recipe)
    assert set(counts) == set(expected)
    for step, count in counts.items():
        assert count - 1 <= expected[step] <= 1.15 * count + 2, (step, count, expected[step])


class Scores(Writer):
    """A `Writer` of nothing bad that can also give scores, and whose answers to mathematics agree."""

    def __call__(self, body: Any, n: int) -> str:
        asked = str(body.get("response_format"))
        return '{"reason": "good", "score": 9}' if "score" in asked else super().__call__(body, n)

    def answer(self, draw: Any, messages: Any) -> str:
        return "It follows at once. The answer is 7."


def test_cost_and_time(tmp_path: Path) -> None:
    """Catches a wrong unit of prices, an endpoint's weight that is ignored, and a concurrency that no endpoint allows."""
    endpoint = {"base_url": "http://a/v1", "model": "a", "max_concurrency": 10, "price_input": 2, "price_output": 10}
    free = {"base_url": "http://b/v1", "model": "b", "max_concurrency": 10, "weight": 3, "price_input": 0}
    recipe = make_recipe(tmp_path / "out", models={"writer": {"endpoints": [endpoint, free]}}, concurrency=500)
    row = _row(recipe, EstimateRow("responses", 1100, 100), Usage(500, 200, 4.0))
    assert row.prompt_tokens == 500_000 and row.answer_tokens == 200_000
    assert row.cost == pytest.approx((0.5 * 2 + 0.2 * 10) / 4)  # a quarter of the requests is paid for
    assert row.seconds == pytest.approx(1000 * 4.0 / 20)
    rows = estimate(recipe)
    assert rows[-1].step == "all" and rows[-1].cost == pytest.approx(sum(row.cost or 0 for row in rows[:-1])) and rows[-1].cost


def test_no_prices_is_not_for_nothing(tmp_path: Path) -> None:
    """Catches a cost of $0.00 for a model of which nobody said what it costs, and one that is lost beside it."""
    unknown, free, priced = (
        {"endpoints": [{"base_url": "http://a/v1", "model": "a", **prices}]}
        for prices in ({}, {"price_input": 0}, {"price_output": 10})
    )
    models, steps = {"a": unknown, "b": free, "c": priced}, {"responses": {"model": "c"}, "instructions": {"model": "b"}}
    recipe = make_recipe(tmp_path / "out", models=models, steps=steps)
    rows = {row.step: row for row in estimate(recipe)}
    assert recipe.unpriced == ["a"]
    assert rows["meta_topics"].cost is None and rows["instructions"].cost == 0
    assert rows["responses"].cost == pytest.approx(rows["responses"].answer_tokens * 10 / 1e6) and rows["responses"].cost > 0
    assert rows["all"].cost == rows["responses"].cost
    shown = CliRunner().invoke(app, ["synth", str(tmp_path / "out.yaml"), "--dry-run"], env={"COLUMNS": "120"}).stdout
    (told,) = [line for line in shown.splitlines() if line.startswith("no prices are given for a ")]
    assert told and f"${rows['all'].cost:,.2f}" in shown
    none = make_recipe(tmp_path / "none")
    assert all(row.cost is None for row in estimate(none))
    shown = CliRunner().invoke(app, ["synth", str(tmp_path / "none.yaml"), "--dry-run"], env={"COLUMNS": "120"}).stdout
    assert "$" not in shown and "no prices are given for writer" in shown


def test_of_a_run_underway_and_of_one_that_is_done(tmp_path: Path) -> None:
    """Catches averages of the store that are not used, and a finished run that seems to lack something."""
    with FakeEndpoint(Writer()) as server:
        recipe = make_recipe(tmp_path / "out", server.base_url)
        assumed = {row.step: row for row in dry_run(recipe)}
        run_synth(recipe, until="instructions")
        underway = {row.step: row for row in dry_run(recipe)}
        assert underway["instructions"].answered > 20 and underway["responses"] == assumed["responses"]
        assert underway["all"].requests > underway["all"].answered > 0
        run_synth(recipe)
        done = dry_run(recipe)[-1]
        assert done.requests == done.answered == len(server.requests) and done.prompt_tokens == 0 and done.cost is None
        larger = make_recipe(tmp_path / "out", server.base_url, domains=domains(2, 4, 200))
        row = next(row for row in dry_run(larger) if row.step == "responses")
    with AnswerStore(recipe.store) as store:
        totals = store.totals()["responses"]
    assert row.prompt_tokens / (row.requests - row.answered) == pytest.approx(totals.prompt_tokens / totals.answers)
