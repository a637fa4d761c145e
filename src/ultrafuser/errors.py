"""The one error type that a user's mistake raises, and words for it. The command line prints it as one line, with exit code 2."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


class UserError(Exception):
    """A mistake of the user's: the message says what is wrong, where, and what to do, in one line."""

    def __init__(self, message: str):
        super().__init__(message)


def first_line(error: Exception) -> str:
    """What an error says, in one line; a line that ends with a colon only announces the next."""
    text = re.sub(r":\s*\n\s*", ": ", str(error).strip())
    return next(iter(text.splitlines()), type(error).__name__)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'math'?"`` when a known word is close to ``word``, else an empty string."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


def plural(count: int, noun: str) -> str:
    """``"1 example"``, ``"2 examples"``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
