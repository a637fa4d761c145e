"""The index of n-grams against a brute-force search, and the note beside a checked file."""

from __future__ import annotations

import json
import logging
import random
from pathlib import Path

import pytest

from ultrafuser.decontaminate import NgramIndex, normalise, sidecar, warn_if_unchecked, was_checked, write_checked

THIRTEEN = "one two three four five six seven eight nine ten eleven twelve thirteen"


def runs(words: list[str], n: int) -> list[str]:
    return [" ".join(words[start : start + n]) for start in range(len(words) - n + 1)]


def brute_force(text: str, tests: list[tuple[str, str, str]], n: int, shortest: int) -> dict[str, set[tuple[str, str]]]:
    """Test set -> every (gram, where) of it in ``text``, found by comparing every run of words with every other."""
    found: dict[str, set[tuple[str, str]]] = {}
    for test, where, test_set in tests:
        words = test.split()
        if len(words) >= shortest:
            length = min(n, len(words))
            shared = set(runs(words, length)) & set(runs(text.split(), length))
            found.setdefault(test_set, set()).update((gram, where) for gram in shared)
    return {test_set: pairs for test_set, pairs in found.items() if pairs}


@pytest.mark.parametrize("seed", range(20))
def test_finds_what_brute_force_finds(seed: int) -> None:
    """Catches a gram missed at an end, a short text that matches in part, a hit in the wrong test set or words never shared."""
    rng = random.Random(seed)

    def text(longest: int) -> str:
        return " ".join(rng.choices("abc", k=rng.randint(0, longest)))

    n, shortest = 5, 3
    tests = [(text(9), f"test {number}", rng.choice("XYZ")) for number in range(12)]
    index = NgramIndex(n, shortest)
    for test, where, test_set in tests:
        assert index.add(test, where, test_set) == (len(test.split()) >= shortest)
    clean = 0
    for _ in range(100):
        train = text(14)
        expected = brute_force(train, tests, n, shortest)
        found = {one.test_set: one for one in index.overlaps(train)}
        assert found.keys() == expected.keys()
        assert all(
            any(one.ngram == gram for gram, _ in expected[name])
            and any(one.where == where for _, where in expected[name])
            and one.ngram in train
            for name, one in found.items()
        )
        first = index.overlap(train)
        assert (first is None) == (not expected)
        clean += not expected
    assert 5 < clean < 95  # else nothing was compared


def test_gram_and_place_belong_together() -> None:
    """Catches a report that names words of one test text and the place of another."""
    index = NgramIndex()
    index.add(THIRTEEN + " end", "first", "A")
    index.add("eight words that are short enough for one", "second", "A")
    index.add("zero " + THIRTEEN, "third", "B")
    found = index.overlaps("say: Eight words that are short enough for one! " + THIRTEEN.upper())
    assert [(one.ngram, one.where, one.test_set) for one in found] == [(THIRTEEN, "first", "A"), (THIRTEEN, "third", "B")]
    short = index.overlap("Eight words, that are short: enough for one.")
    assert short is not None and (short.ngram, short.where) == ("eight words that are short enough for one", "second")


def test_thirteen_words_and_no_fewer() -> None:
    """Catches a gram of another length than the paper's, and short texts that match everything."""
    index = NgramIndex()
    assert index.add(THIRTEEN + " fourteen", "long")
    assert index.overlap(THIRTEEN.removesuffix(" thirteen")) is None
    assert index.overlap("zero " + THIRTEEN) is not None
    assert not index.add("What is the capital of France?", "short")
    assert index.overlap("What is the capital of France? What is the capital of France?") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't  PAY $1,234.50\n(now)!", ["dont", "pay", "123450", "now"]),
        ("f(x, y) = x_1 -- z", ["fx", "y", "x1", "z"]),
        ("Caf\u00e9 cafe\u0301", ["café", "café"]),
        ("x\u00a0²  \u2018quoted\u2019", ["x", "2", "quoted"]),
        (" .. ", []),
    ],
)
def test_normalise(text: str, words: list[str]) -> None:
    """Catches words that differ by case, punctuation, kinds of quotes, accents or spaces only."""
    assert normalise(text) == words


def test_checked_means_this_very_content(tmp_path: Path) -> None:
    """Catches a file that counts as checked after it was changed, moved onto another, or only has somebody's note beside it."""
    file = tmp_path / "a.jsonl"
    assert not was_checked(file) and not was_checked(tmp_path)
    file.write_text("clean\n")
    write_checked(file, {"examples": 1})
    assert was_checked(file) and was_checked(str(file)) and json.loads(sidecar(file).read_text())["examples"] == 1
    file.write_text("clean\nand more\n")
    assert not was_checked(file)
    for broken in ("{", "[]", "{}"):
        sidecar(file).write_text(broken)
        assert not was_checked(file)


def test_warning_names_the_unchecked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Catches a warning about checked data, silence about unchecked, and a traceback for a name of no possible file."""
    checked = tmp_path / "checked.jsonl"
    checked.write_text("x")
    write_checked(checked, {})
    with caplog.at_level(logging.WARNING):
        warn_if_unchecked([checked])
        assert caplog.messages == []
        warn_if_unchecked([str(checked), "owner/name", tmp_path / "b.jsonl"])
        warn_if_unchecked(["~nosuchuser/a.jsonl", "x" * 300])
    assert caplog.messages[0].startswith(f"owner/name, {tmp_path / 'b.jsonl'}: never checked")
    assert caplog.messages[1].startswith(f"~nosuchuser/a.jsonl, {'x' * 300}: never checked") and len(caplog.messages) == 2
