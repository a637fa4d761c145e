r"""The answers that a solution puts into boxes, as MATH wants it: ``\boxed{..}``."""

from __future__ import annotations

import re

# An escaped brace is part of the answer, whichever box it is in.
_BRACES = re.compile(r"\\[{}]|(?P<box>\\(?:boxed|fbox)(?=[\s{])\s*)(?P<brace>\{)?|(?P<open>\{)|(?P<close>\})")
_UNBRACED = re.compile(r"[^$\n]*")


def last_boxed(text: str) -> str | None:
    r"""What stands in the last complete ``\boxed{..}`` that is not empty; None if none is."""
    return next((content for _, content in reversed(boxes(text)) if content), None)


def boxes(text: str) -> list[tuple[int, str]]:
    r"""Where the content of every complete ``\boxed{..}`` (``\fbox{..}``, ``\boxed 5``) begins, and what it is, in order."""
    open_braces: list[int | None] = []  # where an open box's content begins; None: another brace
    contents: dict[int, str] = {}  # by where they begin
    for found in _BRACES.finditer(text):
        if found["open"]:
            open_braces.append(None)
        elif found["brace"]:
            open_braces.append(found.end())
        elif found["box"]:
            contents[found.end()] = _UNBRACED.match(text, found.end())[0].strip()  # type: ignore[index]  # it always matches
        elif found["close"] and open_braces and (start := open_braces.pop()) is not None:
            contents[start] = text[start : found.start()].strip()
    return sorted(contents.items())
