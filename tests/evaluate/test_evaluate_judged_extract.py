"""What a judge said, and the options about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ultrafuser.errors import UserError
from ultrafuser.evaluate.judged.extract_verdict import parse_rating, parse_verdict
from ultrafuser.evaluate.judged.settings import REFERENCES, JudgeSettings, judge_from_options, parse_prices


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"reason": "B is empty", "verdict": "A"}', "A"),
        ('Sure!\n```json\n{"reason": "x", "verdict": "B",}\n```\nAnything else?', "B"),
        ("{'reason': 'x', 'verdict': 'tie'}", "tie"),
        ('{"reason": "A says {1, 2}", "verdict": "answer B"}', "B"),
        ("B rambles. [[A]]", "A"),
        ("I will say [[A]] or [[B]] or [[C]].\nBoth are poor: [[C]]", "tie"),
        ("Verdict: B", "B"),
        ("**Verdict:** B.", "B"),
        ("The verdict is a tie", None),  # not A; without a mark it is no verdict in a form that was asked for
        ("verdict: A tie", None),
        ("A", "A"),
        (" **tie**\n", "tie"),
        ('<think>{"verdict": "A"} no, wait</think>{"reason": "", "verdict": "B"}', "B"),
        ('<think>{"verdict": "A"} is not', None),
        ('{"reason": "neither", "verdict": "neither"}', None),
        ('{"reason": "cut off in the mid', None),
        ("A good question! Both answers have their merits.", None),
        ("I'm sorry, but as an AI language model I cannot help with that.", None),
        ("[[D]]", None),
        ("", None),
    ],
)
def test_verdicts(text: str, expected: str | None) -> None:
    """A usual way to write a verdict is not read, or babble is taken for one (the article "A" above all)."""
    assert parse_verdict(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Rating: [[7]]", 7),
        ("Well done. Rating: [[8.5]]", 8.5),
        ("[[7/10]]", 7),
        ("[[rating: 10]]", 10),
        ('An example would be "[[5]]". Mine: [[2]]', 2),
        ("**Rating:** 7/10", 7),
        ("Rating: [9]", 9),
        ("I give it a rating of 6.", 6),
        ('{"reason": "x", "rating": 4}', 4),
        ('{"reason": "x", "rating": "4/10"}', 4),
        ('```json\n{"reason": "def f(): return {}", "rating": 3,}\n```', 3),
        ("7", 7),
        ("<think>[[1]]</think>[[9]]", 9),
        ("[[0]]", None),
        ("[[11]]", None),
        ("Rating: 75", None),
        ("Rating: 4/5", None),
        ("Rating: 7/100", None),
        ("Rating: -3", None),
        ('{"reason": "x", "rating": 70}', None),
        ('{"reason": "x", "rating": true}', None),
        ('{"reason": "x", "rating": null}', None),
        ("It computes f(7), as arr[5] shows, on a scale of 1 to 10.", None),
        ("[[seven]]", None),
        ("", None),
    ],
)
def test_ratings(text: str, expected: float | None) -> None:
    """A usual way to write a mark is not read, or some other number (of another scale, of the reasoning) is taken for one."""
    assert parse_rating(text) == expected


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"base_url": "localhost:8000"}, "--judge-url: must be a URL such as http://localhost:8000/v1"),
        ({"base_url": "http://me:secret@host/v1"}, "--judge-url: must not hold a user, password or query"),
        ({"reference": "text_davinci_03"}, "did you mean 'text_davinci_003'?"),
        ({"budget": 1.0}, "--judge-budget needs --judge-price"),
        ({"budget": 0.0, "prices": (1.0, 1.0)}, "--judge-budget: 0 is no budget"),
        ({"budget": float("nan"), "prices": (1.0, 1.0)}, "--judge-budget: nan is no budget"),
        ({"prices": (-1.0, 1.0)}, "--judge-price=-1.0: must be at least 0"),
        ({"prices": (1.0, float("inf"))}, "--judge-price=inf: must be finite"),
        ({"model": 3}, "--judge-model=3: must be text"),
        ({"model": ""}, "--judge-model='': must have a length of at least 1"),
        ({"concurrency": 0}, "concurrency=0: must be at least 1"),
        ({"timeout": 0}, "timeout=0: must be above 0"),
        ({"limit": 0}, "limit: 0 questions"),
    ],
)
def test_options_that_cannot_be(changes: dict, line: str) -> None:
    """A mistake in an option shows late, as a traceback, in pydantic's words, or with a password from the URL."""
    with pytest.raises(UserError) as error:
        JudgeSettings(**{"base_url": "http://localhost/v1", "model": "m", "store": Path("x"), **changes})
    assert line in str(error.value)
    assert "\n" not in str(error.value) and "secret" not in str(error.value) and "nput" not in str(error.value)


NOTHING: dict[str, Any] = {"price": None, "api_key_env": None, "budget": None, "reference": None, "moved": False}


@pytest.mark.parametrize(
    ("option", "given"),
    [
        ("--judge-price", {"price": "1,2"}),
        ("--judge-price", {"price": ""}),
        ("--judge-key-env", {"api_key_env": "KEY"}),
        ("--judge-budget", {"budget": 0.0}),
        ("--judge-reference", {"reference": REFERENCES[1]}),
        ("--judge-moved", {"moved": True}),
    ],
)
def test_options_without_a_judge(option: str, given: dict[str, Any]) -> None:
    """What is said of a judge that is not given is ignored without a word: a budget that holds nothing back, say."""
    with pytest.raises(UserError) as error:
        judge_from_options(None, None, **(NOTHING | given), store=Path("x"))
    assert str(error.value) == f"{option}: there is no judge; give --judge-url and --judge-model too, or leave it out"


def test_judge_from_options() -> None:
    """An option gets lost on its way or into another's place; half of a judge is taken for one or for none."""
    assert judge_from_options(None, None, **NOTHING, store=Path("x")) is None
    for half in (("http://h/v1", None), (None, "m")):
        with pytest.raises(UserError, match="--judge-url and --judge-model are given together"):
            judge_from_options(*half, **NOTHING, store=Path("x"))
    plain = judge_from_options("http://h/v1", "m", **NOTHING, store=Path("x"), limit=2)
    assert plain == JudgeSettings("http://h/v1", "m", Path("x"), limit=2)
    given = {"price": "1,2", "api_key_env": "KEY", "budget": 3.0, "reference": REFERENCES[1], "moved": True}
    expected = {"prices": (1.0, 2.0), "api_key_env": "KEY", "budget": 3.0, "reference": REFERENCES[1], "moved": True}
    chosen = judge_from_options("http://h/v1", "m", **given, store=Path("x"))
    assert chosen == JudgeSettings("http://h/v1", "m", Path("x"), **expected)


def test_prices() -> None:
    """IN and OUT are swapped, or something else than two numbers is taken."""
    assert parse_prices("2.5, 10") == (2.5, 10.0)
    for text in ("2.5", "1,2,3", "a,b", ""):
        with pytest.raises(UserError, match="--judge-price"):
            parse_prices(text)
