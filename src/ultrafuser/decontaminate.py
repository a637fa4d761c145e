"""Finds test data in training data: shared 13-grams of words (paper, section 3), and remembers which files were checked.

"Every training text that shares a 13-gram with test data is dropped." The paper does not say what a word is. Here case does not
count, punctuation and symbols are removed, and words are what whitespace then separates: ``f(x, y) = 3.5`` is ``fx y 35``. (So a
text in a language without spaces is hardly ever found.) A test text of 8 to 12 words is one gram as a whole, in the manner of
GPT-3's filter; a shorter one is never looked for, since "What is the capital of France?" would drop honest training data.

A shared 13-gram is a suspicion, not a proof: phrases such as "write a function that takes a string as input and returns the
sum", counting ("1 one 2 two 3 three ..") and textbook loops are shared too. Nothing is exempted; the report shows each gram.
"""

from __future__ import annotations

import hashlib
import logging
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ultrafuser.errors import UserError
from ultrafuser.io import is_file, read_json, user_path, write_json

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Overlap:
    """Words that a text shares with a test text, normalised, and which test text of which test set that is."""

    ngram: str
    where: str
    test_set: str


class NgramIndex:
    """The n-grams of test texts, to be looked for in other texts.

    Grams are known by 64-bit hashes; with a million of them and 300k training texts of 300 words, one chance match in two
    hundred thousand runs is to be expected.

    Args:
        n: words in a gram.
        shortest: test texts of fewer words than ``n`` count as one gram if they have at least so many.
    """

    def __init__(self, n: int = 13, shortest: int = 8) -> None:
        self.n, self.shortest = n, min(shortest, n)
        self._grams: dict[int, tuple[tuple[str, str], ...]] = {}  # gram -> (test set, where), the first of every test set
        self._short: dict[int, list[tuple[Sequence[str], tuple[str, str]]]] = {}  # first words of a short text -> whole texts

    def add(self, text: str, where: str, test_set: str = "") -> bool:
        """Index a test text; False if it is too short to be looked for."""
        words, item = normalise(text), (test_set, where)
        if len(words) < self.shortest:
            return False
        if len(words) < self.n:
            self._short.setdefault(hash(tuple(words[: self.shortest])), []).append((words, item))
        for gram in _grams(words, self.n):
            known = self._grams.get(gram, ())
            if all(test_set != other for other, _ in known):
                self._grams[gram] = (*known, item)
        return True

    def overlap(self, text: str) -> Overlap | None:
        """The first gram that ``text`` shares with a test text."""
        return next(iter(self.overlaps(text)), None)

    def overlaps(self, text: str) -> list[Overlap]:
        """For each test set that ``text`` shares a gram with, the first such gram."""
        words = normalise(text)
        found: dict[str, Overlap] = {}
        for start, length, (test_set, where) in (*self._long_matches(words), *self._short_matches(words)):
            found.setdefault(test_set, Overlap(" ".join(words[start : start + length]), where, test_set))
        return list(found.values())

    def _long_matches(self, words: Sequence[str]) -> Iterator[tuple[int, int, tuple[str, str]]]:
        if self._grams.keys().isdisjoint(_grams(words, self.n)):  # nearly always, and quick
            return
        for start, gram in enumerate(_grams(words, self.n)):
            for item in self._grams.get(gram, ()):
                yield start, self.n, item

    def _short_matches(self, words: Sequence[str]) -> Iterator[tuple[int, int, tuple[str, str]]]:
        if self._short.keys().isdisjoint(_grams(words, self.shortest)):
            return
        for start, gram in enumerate(_grams(words, self.shortest)):
            for short, item in self._short.get(gram, ()):
                if words[start : start + len(short)] == short:
                    yield start, len(short), item


class _Normalised(dict[int, int | None]):
    """For `str.translate`: letters, digits and whitespace stay, every other character goes."""

    def __missing__(self, code: int) -> int | None:
        self[code] = code if chr(code).isalnum() or chr(code).isspace() else None
        return self[code]


_NORMALISED = _Normalised()


def normalise(text: str) -> list[str]:
    """The words of ``text`` that are compared: lower case, without punctuation and symbols."""
    return unicodedata.normalize("NFKC", text).lower().translate(_NORMALISED).split()


def _grams(words: Sequence[str], n: int) -> Iterator[int]:
    """The hash of every run of ``n`` words."""
    return map(hash, zip(*(islice(words, start, None) for start in range(n)), strict=False))


def sidecar(path: Path | str) -> Path:
    """The file beside a data file that says what it was checked against."""
    return Path(f"{path}.checked.json")


def write_checked(path: Path | str, facts: Mapping[str, Any]) -> None:
    """Note beside the data file ``path`` that this very content was checked, and what ``facts`` say about the check."""
    write_json(sidecar(path), {"sha256": _digest(Path(path)), **facts})


def was_checked(path: Path | str) -> bool:
    """Was the data file ``path``, as it is now, ever checked? False for what is no file."""
    if not (is_file(path) and is_file(sidecar(path))):
        return False
    try:
        noted = read_json(sidecar(path))
    except UserError:  # not ours, or damaged: then nothing is known
        return False
    return isinstance(noted, dict) and noted.get("sha256") == _digest(Path(path))


def warn_if_unchecked(sources: Iterable[str | Path]) -> None:
    """Log a warning that names the training data never checked for test data; only `write_checked` counts as a proof."""
    unchecked = [str(source) for source in sources if not was_checked(user_path(source))]
    if unchecked:
        logger.warning(
            "%s: never checked for test data, so benchmark scores may be too good; "
            "'ultrafuser decontaminate TRAIN --against TASKS --out FILE' does that",
            ", ".join(unchecked),
        )


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
