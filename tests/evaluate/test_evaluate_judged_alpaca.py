"""AlpacaEval against judges over real HTTP whose verdicts can be worked out by hand."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from pathlib import Path

import pytest
from judged_world import REFERENCE_QUALITY, always_first, fair, model, quality_of, settings, shown, verdict, write_alpaca_eval

from fake_endpoint import FakeEndpoint, spoiled
from ultrafuser.evaluate.judged.alpaca_eval import run_alpaca_eval

COUNT = 30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_alpaca_eval(tmp_path, COUNT)
    return tmp_path


def mixed(i: int) -> int:
    return (i * 7) % 11  # 0 to 10, so worse, equal and better than the reference


def expected(quality: int) -> float:
    return 1.0 if quality > REFERENCE_QUALITY else 0.5 if quality == REFERENCE_QUALITY else 0.0


def test_judge_with_position_bias(folder: Path) -> None:
    """The orders are not swapped, or a verdict is credited to the wrong answer: "always A" must give 1/2 exactly."""
    with FakeEndpoint(script=always_first) as server:
        score = run_alpaca_eval(model(mixed), settings(server, folder))
    assert (score.value, score.standard_error, score.n, score.unparsed) == (0.5, 0.0, COUNT, 0)
    assert f"the verdict changed with the order of the answers in 100.0% of {COUNT} pairs" in score.notes


def test_fair_judge(folder: Path) -> None:
    """Win rate, standard error or a record is not that of the model's own answers, or a pair is not shown once in each order."""
    with FakeEndpoint(script=fair) as server:
        score = run_alpaca_eval(model(mixed), settings(server, folder, prices=(1.0, 2.0)))
    wins = [expected(mixed(i)) for i in range(COUNT)]
    assert score.value == pytest.approx(statistics.mean(wins))
    assert score.standard_error == pytest.approx(statistics.stdev(wins) / math.sqrt(COUNT))
    assert f"the verdict changed with the order of the answers in 0.0% of {COUNT} pairs" in score.notes
    pairs = Counter(shown(body) for body in server.requests)
    assert len(pairs) == 2 * COUNT and all(pairs[(second, first)] == 1 for first, second in pairs)
    for record in score.records:
        i = int(record["id"].split("-")[1])
        assert (record["prompt"], record["win"]) == (f"question {i}", wins[i])
        assert quality_of(record["answer"]) == mixed(i) and record["reference"].startswith(f"reference_text_davinci_003 {i},")
        assert [one["judge"] for one in record["verdicts"]] == ["fake-0001"] * 2
        assert record["cost"] == pytest.approx(sum(one["cost"] for one in record["verdicts"])) and record["cost"] > 0


def test_verdicts_that_change_with_the_order_in_part(folder: Path) -> None:
    """The share of inconsistent pairs counts verdicts instead of pairs, or a win in one order for a win."""

    def unsure(body: dict, n: int) -> str:
        first, second = (quality_of(text) for text in shown(body))
        return verdict("A") if abs(first - second) <= 2 else fair(body, n)

    with FakeEndpoint(script=unsure) as server:
        score = run_alpaca_eval(model(mixed), settings(server, folder))
    close = [abs(mixed(i) - REFERENCE_QUALITY) <= 2 for i in range(COUNT)]
    assert score.value == pytest.approx(statistics.mean(0.5 if close[i] else expected(mixed(i)) for i in range(COUNT)))
    assert f"in {sum(close) / COUNT:.1%} of {COUNT} pairs" in " ".join(score.notes)


def test_nothing_to_judge(folder: Path) -> None:
    """Money is spent on empty or identical answers, or an empty one is saved by a judge's bias."""

    def reference(batch: list) -> list[str]:
        numbers = [messages[0]["content"].split()[1] for messages in batch]
        return [f"reference_gpt4_1106_preview {number}, quality {REFERENCE_QUALITY}" for number in numbers]

    with FakeEndpoint(script=always_first) as server:
        nothing = run_alpaca_eval(lambda batch: [" \n"] * len(batch), settings(server, folder))
        same = run_alpaca_eval(reference, settings(server, folder, reference="gpt4_1106_preview"))
    assert (nothing.value, nothing.n, same.value, same.n) == (0.0, COUNT, 0.5, COUNT)
    assert server.requests == []


def test_pair_that_only_gets_babble(folder: Path) -> None:
    """Half a pair counts (it would carry the position bias), an unreadable verdict counts as a loss, or is asked for ever."""

    def babbles(body: dict, n: int) -> str:
        first, second = shown(body)
        return "What a nice day." if first.startswith("mine") and " 7," in second else fair(body, n)

    with FakeEndpoint(script=babbles) as server:
        score = run_alpaca_eval(model(mixed), settings(server, folder, seed=3))
    wins = {i: expected(mixed(i)) for i in range(COUNT) if i != 7}
    assert score.value == pytest.approx(statistics.mean(wins.values()))
    assert (score.n, score.unparsed) == (COUNT - 1, 1)
    asked = [body for body in server.requests if shown(body)[0].startswith("mine") and " 7," in shown(body)[1]]
    assert [(body["seed"], body["temperature"]) for body in asked] == [(3, 0.0), (4, 0.7), (5, 0.7)]
    (record,) = (record for record in score.records if record["id"] == "a-7")
    assert record["win"] is None and record["verdicts"][0]["said"] == "What a nice day."
    assert "1 verdict left out: not readable in 3 attempts" in score.notes


@pytest.mark.parametrize("structured", [True, False])
def test_judge_that_writes_badly_and_now_and_then_nonsense(folder: Path, structured: bool) -> None:
    """Prose, fences and stray commas around a verdict cost a verdict, or asking again after nonsense does not help."""

    def moody(body: dict, n: int) -> str:
        return "Hm." if body["seed"] == 0 and quality_of(shown(body)[0]) % 3 == 0 else fair(body, n)

    with FakeEndpoint(script=spoiled(moody, 0.7), structured_output=structured) as server:
        score = run_alpaca_eval(model(mixed), settings(server, folder))
    assert score.value == pytest.approx(statistics.mean(expected(mixed(i)) for i in range(COUNT)))
    assert (score.n, score.unparsed) == (COUNT, 0)


def test_same_seed_same_questions(folder: Path) -> None:
    """What the judge is asked depends on chance, or the seed does not reach it."""

    def asked(seed: int, name: str) -> list[tuple]:
        with FakeEndpoint(script=fair) as server:
            run_alpaca_eval(model(mixed), settings(server, folder, seed=seed, store=folder / name, limit=12))
        return [(*shown(body), body["seed"]) for body in server.requests]

    one, two, other = asked(1, "one"), asked(1, "two"), asked(2, "other")
    assert sorted(one) == sorted(two)
    assert {seed for *_, seed in other} == {2} and sorted(pair for *pair, _ in other) == sorted(pair for *pair, _ in one)
    assert {int(second.split()[1].strip(",")) for _, second, _ in one if second.startswith("ref")} == set(range(12))
