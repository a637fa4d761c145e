"""The one error type that a user's mistake raises, and words for it. The command line prints it as one line, with exit code 2."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

Result = TypeVar("Result")


class UserError(Exception):
    """A mistake of the user's: the message says what is wrong, where, and what to do, in one line."""

    def __init__(self, message: str):
        super().__init__(message)


class UserErrors(UserError):
    """Several mistakes, each a line of its own, of what is called ``where``; one alone stands beside it."""

    def __init__(self, where: str, lines: Sequence[str]):
        self.lines = list(lines)
        several = f"{len(self.lines)} mistakes\n  " + "\n  ".join(self.lines)
        super().__init__(f"{where}: {self.lines[0] if len(self.lines) == 1 else several}")


class Attempts:
    """Tries one thing after another, so that the mistakes of all are told at once."""

    def __init__(self) -> None:
        self.mistakes: list[str] = []

    def __call__(self, do: Callable[[], Result]) -> Result | None:
        """What ``do`` returns; None where it makes a mistake, which is kept."""
        try:
            return do()
        except UserErrors as error:
            self.mistakes += error.lines
        except UserError as error:
            self.mistakes.append(str(error))
        return None

    def conclude(self, where: str) -> None:
        """Raise `UserError` if there were mistakes; one alone says itself where it is."""
        if self.mistakes:
            raise UserErrors(where, self.mistakes) if len(self.mistakes) > 1 else UserError(self.mistakes[0])


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
