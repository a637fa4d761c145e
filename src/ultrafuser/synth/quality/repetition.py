"""Loops: a model that has begun to say the same again and again. Refrains, tables and code are not taken for loops."""

from __future__ import annotations

import re

REPEATS = 4  # of the last words, one after another ..
LOOP_WORDS = 40  # .. and at least so many words in all
LONGEST = 100  # words of a repeated piece
GRAM = 8  # words
DUPLICATES = 0.6  # share of the 8-grams that occurred before
ENOUGH = 120  # words, for a share to say something
NO_PROSE = re.compile(r"^.*(?:\|.*\||[<{};]).*$", re.MULTILINE)  # lines of tables and of code without fences
LETTERS = re.compile(r"[^\W\d_]{2}")  # a matrix may say the same many times
ITEM_NUMBER = re.compile(r"^\s*\d+[.)]", re.MULTILINE)


def find_loop(prose: str) -> str | None:
    """What is repeated, or None: a piece said four times over at the end, or most of all 8-word sequences said before."""
    words = ITEM_NUMBER.sub("", NO_PROSE.sub("", prose)).split()
    if piece := _looping_tail(words):
        return f"repeats '{piece[:50]}'"
    share = _duplicate_share([word for word in words if LETTERS.search(word)])
    return f"{share:.0%} of it was said before" if share >= DUPLICATES else None


def _looping_tail(words: list[str]) -> str | None:
    """The piece that the text ends with at least `REPEATS` times; the last one may be cut off."""
    for length in range(1, min(LONGEST, len(words) // REPEATS) + 1):
        at = len(words) - 1
        while at >= length and words[at] == words[at - length]:
            at -= 1
        repeated = len(words) - 1 - at + length
        piece = " ".join(words[-length:])
        if repeated >= max(REPEATS * length, LOOP_WORDS) and LETTERS.search(piece):
            return piece
    return None


def _duplicate_share(words: list[str]) -> float:
    if len(words) < ENOUGH:
        return 0.0
    grams = list(zip(*(words[start:] for start in range(GRAM)), strict=False))
    return 1 - len(set(grams)) / len(grams)
