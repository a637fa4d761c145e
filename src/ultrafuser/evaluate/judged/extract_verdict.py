"""Reads what a judge said: which of two answers is better, or a mark from 1 to 10.

Our own prompts ask for a JSON object, the official ones of MT-Bench for ``[[7]]``. Judges do not always obey, so the usual
variants are read too: prose or fences around the object, ``**Rating:** 7``, ``[[7/10]]``, a bare ``A``. Thoughts are put aside
(`endpoints/thoughts.py`). Of several verdicts the last counts, since a judge that explains first may repeat the format before
it decides (the official MT-Bench code takes the first). What cannot be read is None, never a guess: a mark outside 1 to 10 or out
of another total is not bent into one.
"""

from __future__ import annotations

import re
from typing import Any

from ultrafuser.endpoints.lenient import parse_json
from ultrafuser.endpoints.thoughts import without_thoughts

LOWEST, HIGHEST = 1, 10
VERDICTS = {"A": "A", "B": "B", "C": "tie", "TIE": "tie", "ANSWER A": "A", "ANSWER B": "B"}
_PAIR_MARK = re.compile(r"\[\[\s*(A|B|C|[Tt]ie|TIE)\s*\]\]")
# "Verdict: A", but not the article in "verdict: A tie".
_PAIR_NAMED = re.compile(r"\b[Vv]erdict(?:\s+is)?[\s:*=\"'\[(]{1,6}(?:[Aa]nswer\s+)?(A(?!\s+tie)|B|C|[Tt]ie|TIE)\b")
_NUMBER = r"(\d+(?:\.\d+)?)(?:\s*/\s*10)?"
_MARK = re.compile(rf"\[\[\s*(?:rating\s*:?\s*)?{_NUMBER}\s*\]\]", re.IGNORECASE)
_MARK_NAMED = re.compile(rf"\brating(?:\s+is|\s+of)?[\s:*=\"'\[\](]{{1,8}}{_NUMBER}(?![\d.]*[\d/])(?!\s*/)", re.IGNORECASE)


def parse_verdict(text: str) -> str | None:
    """``"A"``, ``"B"`` or ``"tie"``; None when ``text`` holds no verdict that can be read."""
    text = without_thoughts(text)
    said = _field(text, "verdict")
    if said is None:
        said = _last(_PAIR_MARK, text) or _last(_PAIR_NAMED, text) or text.strip(" \n.*\"'")
    return VERDICTS.get(str(said).strip().upper())


def parse_rating(text: str) -> float | None:
    """The mark, from 1 to 10; None when ``text`` holds none that can be read."""
    text = without_thoughts(text)
    said = _field(text, "rating")
    if said is None:
        said = _last(_MARK, text) or _last(_MARK_NAMED, text) or text
    whole = re.fullmatch(rf"[\s.*\"']*{_NUMBER}[\s.*\"']*", str(said))
    mark = float(whole[1]) if whole else float("nan")
    return mark if LOWEST <= mark <= HIGHEST else None


def _field(text: str, name: str) -> Any:
    """``name`` of the JSON object in ``text``, or None; prose without an object is not searched for one."""
    if "{" not in text or f'"{name}"' not in text.replace("'", '"'):
        return None
    try:
        found = parse_json(text[text.index("{") :])
    except ValueError:
        return None
    return found.get(name) if isinstance(found, dict) else None


def _last(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.findall(text)
    return found[-1] if found else None
