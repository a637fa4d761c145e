"""Near-duplicate search against brute force, and what counts as the same text."""

from __future__ import annotations

import random
import re
import sys

import pytest

from ultrafuser.errors import UserError
from ultrafuser.synth.quality.duplicates import Duplicates, jaccard, normalise, shingles

WORDS = re.findall(
    r"\w+", "the a cat dog sits runs on under green blue mat tree while sun shines rain falls and then it ends well again"
)


def texts(count: int) -> list[str]:
    """Random sentences, most of them with copies in which a few words are changed."""
    draw = random.Random(0)
    made: list[str] = []
    while len(made) < count:
        words = draw.choices(WORDS, k=draw.randint(8, 60))
        for changes in (0, 1, 2, 5, 12):
            copy = list(words)
            for place in draw.sample(range(len(copy)), min(changes, len(copy))):
                copy[place] = draw.choice(WORDS)
            made.append(" ".join(copy))
    draw.shuffle(made)
    return made[:count]


def brute_force(seen: dict[str, frozenset[str]], text: str) -> tuple[str | None, float]:
    """The most similar of all, the first of equals, and how similar it is."""
    own = shingles(normalise(text))
    best = max(((jaccard(own, other), -int(id), id) for id, other in seen.items()), default=(0.0, 0, None))
    return best[2], best[0]


def test_against_brute_force() -> None:
    """Catches missed and invented duplicates: all pairs compared. Only one just above the threshold may be missed, and rarely."""
    index, seen, missed, found = Duplicates(0.7), dict[str, frozenset[str]](), 0, 0
    for number, text in enumerate(texts(600)):
        expected, similarity = brute_force(seen, text)
        got = index.find(text)
        if got is None and similarity >= 0.7:
            assert similarity < 0.8
            missed += 1
        else:
            assert got == (expected if similarity >= 0.7 else None)
            found += got is not None
        if got is None:
            seen[str(number)] = shingles(normalise(text))
            index.add(str(number), text)
    assert found > 100 and missed <= 3 and len(index) == len(seen)


def test_same_result_again() -> None:
    """Catches hashing that depends on the process or on order within a set: two indexes find the same, text by text."""
    first, second = Duplicates(), Duplicates()
    for number, text in enumerate(texts(200)):
        assert first.find(text) == second.find(text)
        first.add(str(number), text)
        second.add(str(number), text)


def test_what_is_the_same() -> None:
    """Catches case, punctuation and white space telling texts apart, and signs that are all there is being dropped."""
    index = Duplicates()
    index.add("a", "Write a function, that adds two numbers!")
    assert index.find("write a FUNCTION that\nadds two numbers") == "a"
    index.add("b", "write a function that adds two numbers")
    assert index.find("Write a function that adds two numbers") == "a" and len(index) == 1
    index.add("c", "+ ?")
    assert index.find("- ?") is None and index.find(" + ? ") == "c"
    assert normalise("二分探索を説明 and code") == "二 分 探 索 を 説 明 and code"


@pytest.mark.parametrize(("first", "second", "expected"), [("a b c d", "a b c e", 1 / 3), ("a", "a", 1), ("a b", "b a", 0)])
def test_jaccard(first: str, second: str, expected: float) -> None:
    """By hand: shingles abc bcd against abc bce; texts shorter than a shingle."""
    assert jaccard(shingles(first), shingles(second)) == expected


def test_library_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a traceback where one line should say what to install."""
    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(UserError, match=r"pip install 'ultrafuser\[synth\]'"):
        Duplicates()
