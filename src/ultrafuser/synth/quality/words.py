"""What the modules that look for phrases share: one way to flatten a text, to write a list of patterns, and to show a find."""

from __future__ import annotations

import re

LONGEST = 60  # characters of a find that a reason shows
QUOTES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "\u00a0": " "})


def plain(text: str) -> str:
    """``text`` with straight quotes, and a single space for all white space."""
    return " ".join(text.translate(QUOTES).split())


def any_of(*patterns: str, before: str = "", after: str = "") -> re.Pattern[str]:
    """A pattern that matches any of ``patterns``, in any case, with ``before`` in front of each and ``after`` behind."""
    return re.compile(f"{before}(?:{'|'.join(patterns)}){after}", re.IGNORECASE)


def any_words(*patterns: str) -> re.Pattern[str]:
    """As `any_of`, for what stands as words of their own."""
    return any_of(*patterns, before=r"\b", after=r"\b")


def shown(match: re.Match[str] | None) -> str | None:
    """The words found, shortened."""
    return None if match is None else match[0].strip()[:LONGEST]
