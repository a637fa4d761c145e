r"""The answer that a worked solution ends in, in a form that two solutions can be compared by.

Read are ``#### 72`` (GSM8K), ``\boxed{72}`` (MATH) and "the answer is 72". Numbers become exact fractions, so that ``1,000``,
``1000.0`` and ``\frac{2000}{2}`` are one answer; other expressions are compared as text, without spaces and typesetting.
"""

from __future__ import annotations

import re
from fractions import Fraction

from ultrafuser.boxed import boxes

TAIL = 800  # characters at the end in which the answer must stand
LONGEST = 80  # characters of an answer: longer is an explanation
HASHES = re.compile(r"^#{3,4}\s*(?:answer\s*:?\s*)?([^\n#]*\d[^\n#]*|[^\n# ]{1,20})\s*$", re.MULTILINE | re.IGNORECASE)
PHRASE = re.compile(
    r"\b(?:final |correct )?answer(?:\*\*)?(?: is(?: therefore| thus| simply| then)?|\s*[:=]):?\s*\**\s*:?\s*\**\s*"
    r"(?P<answer>\$\$?[^$\n]{1,120}\$\$?|\\\(.{1,120}?\\\)|\\\[\s*.{1,120}?\s*\\\]|[^\n]{1,120})",
    re.IGNORECASE,
)
TYPESETTING = re.compile(r"\\(?:left|right|displaystyle|,|;|!|quad|qquad)(?![a-zA-Z])|\\(?=[%$ ])|[$*`]|\\[()\[\]]")
FRACTION = re.compile(r"\\[dt]?frac\s*\{(-?[^{}]*)\}\s*\{([^{}]*)\}")
NUMBER = re.compile(r"-?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:\s*/\s*\d+(?:\.\d+)?)?")
UNIT = re.compile(r"^(-?(?:\d[\d,]*)?(?:\.\d+)?(?:/\d+)?)\s*(?:%|°|[a-zA-Z][a-zA-Z²³/]*(?:\s[a-zA-Z]+){0,3})$")


def final_answer(text: str) -> str | None:
    """The answer that ``text`` ends in, normalised; None if there is none that can be checked."""
    tail = text[-TAIL:]
    found = [(match.start(), match[1]) for match in HASHES.finditer(tail)]
    found += boxes(tail)
    if not found:
        found = [(match.start(), _first_expression(match["answer"])) for match in PHRASE.finditer(tail)]
    for _, raw in sorted(found, reverse=True):
        answer = normalise(raw)
        if answer and len(answer) <= LONGEST:
            return answer
    return None


def normalise(raw: str) -> str:
    """``raw`` in the form that equal answers share; empty if nothing is left of it."""
    text = re.sub(r"\\(?:text|mathrm|mathbf|textbf)\s*\{([^{}]*)\}", r"\1", raw)
    text = FRACTION.sub(r"(\1)/(\2)", TYPESETTING.sub("", text)).strip().rstrip(".").strip()
    text = re.sub(r"^(?:[a-zA-Z]\s*=|£|€|≈)\s*", "", text)
    unit = UNIT.match(text)
    number = _number(unit[1] if unit else text)
    return number if number is not None else re.sub(r"\s+", "", text).lower()


def _number(text: str) -> str | None:
    bare = re.sub(r"\((-?[\d.,]+)\)", r"\1", text).replace(" ", "")
    if not bare.strip("-") or not NUMBER.fullmatch(bare):
        return None
    above, _, below = bare.replace(",", "").partition("/")
    try:
        return str(Fraction(above) / Fraction(below or 1))
    except (ValueError, ZeroDivisionError):
        return None


def _first_expression(line: str) -> str:
    """An answer in the midst of a sentence: up to the end of the sentence; with a unit, the number is enough."""
    line = re.split(r"(?<=[^\d])\.(?:\s|$)|\.\s|\.$|;|, (?:which|so|because|since|as)\b", line, maxsplit=1)[0].strip()
    return line if len(line) <= LONGEST and re.search(r"\d|\\|^\(?[A-Za-z]\)?$|^\$", line) else ""
