r"""What a model's free text answers: one rule per kind of task, each a pure function that returns None when it finds nothing.

The sentence that a reader sees next to a score stands in `catalogue.py`; here is the rule itself. None counts as a wrong answer
and is reported separately, so that "cannot do it" and "does not say it in a form we can read" are told apart. `read_letter` and
`read_program` have files of their own, `extract_letter.py` and `extract_program.py`. All are given an answer `without_thoughts`.

Departures from lm-evaluation-harness: it reads GSM8K by two filters, a strict and a flexible one; ours is one rule that looks
for a stated answer before it takes the last number. It reads MATH by a phrase that only its four-shot prompt elicits.
"""

from __future__ import annotations

import re
from fractions import Fraction

from ultrafuser.boxed import last_boxed

# "The answer is", "**Answer:**", "the answer to this problem is therefore": what follows is the answer.
STATED = (
    r"\b(?i:answer)\**(?i:,? then,?| to (?:this|the) (?:question|problem))?(?:\s*[:=]|\s+(?i:is)\b:?)"
    r"\**(?:\s*(?i:therefore|thus|then|clearly|simply|about|approximately)\b)?"
)
# How a number can be written, and how `_NUMBER` knows it; in this order.
_SPELLINGS = (
    (r"[−–]", "-"),  # minus signs
    (r"\{,\}|\\[!,]|(?<=\d)[\u00a0\u2009\u202f](?=\d{3})", ""),  # separators of thousands, but for the comma
    (r"(?<=\d)\s*\\[dt]?frac", r" \\frac"),  # 3\frac{1}{2} is a mixed number
    (r"\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}", r"\1/\2"),
    (r"\\?[$%]|[£€¥]", ""),
)
_NUMBER = re.compile(
    r"(?P<minus>(?<![\w)])-)?"  # unless it stands after something it could be subtracted from
    r"(?:(?P<whole>[0-9]{1,9}) (?=[0-9]+/[1-9]))?"  # the 3 of 3 1/2
    r"(?P<number>(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2}\b)?)"
    r"(?:/(?P<denominator>[0-9]+))?"
)
# Not the 2 of the Markdown heading "#### 2. Add them up".
_MARKED = re.compile(rf"####[\s*]*({_NUMBER.pattern})(?![.,/]?\d|[.):]\**[ \t]+\S)")
# With a calculation after it, it is no final answer but the head of one: "Answer: 16 eggs a day. 16 - 3 = 13".
_STATED_NUMBER = re.compile(rf"{STATED}[\s*:(]*({_NUMBER.pattern})(?![^=]*=)")
_LONGEST_NUMBER = 100  # characters; Python refuses to turn thousands of digits into a number


def read_number(text: str) -> str | None:
    r"""GSM8K: the final number of the text as a reduced decimal-free string.

    In this order: the number after the last ``####``; the one in the last ``\boxed{}``; the one right after the last "answer is"
    or "answer:", if no ``=`` comes later; the last one of all. Commas, currency and percent signs do not matter; ``18``,
    ``18.00`` and ``$18.`` are the same, ``1/2`` is one number and equals ``0.5``. The result is canonical: equal numbers give
    equal strings (``"18"``, ``"1/2"``).
    """
    for pattern, written in _SPELLINGS:
        text = re.sub(pattern, written, text)
    marked = [match[1] for match in _MARKED.finditer(text)]
    in_box = [match[0] for match in _NUMBER.finditer((last_boxed(text) or "").rpartition("=")[2])][:1]
    stated = [match[1] for match in _STATED_NUMBER.finditer(text)]
    found = marked or in_box or stated or [match[0] for match in _NUMBER.finditer(text)]
    return _canonical(found[-1]) if found else None


def _canonical(text: str) -> str:
    number = _NUMBER.fullmatch(text.replace(",", ""))
    if number is None or len(text) > _LONGEST_NUMBER:
        return text
    denominator = int(number["denominator"] or 1)
    if not denominator:
        return text
    value = int(number["whole"] or 0) + Fraction(number["number"]) / denominator
    return str(-value if number["minus"] else value)


_DELIMITED = re.compile(r"[\s*:]*(?:\$\$?(.+?)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\])", re.DOTALL)


def read_math(text: str) -> str | None:
    r"""MATH: what the last ``\boxed{..}`` holds, or else what follows the last "answer is" (or "answer:") in its sentence."""
    in_box, stated = last_boxed(text), list(re.finditer(STATED, text))
    if in_box is not None or not stated:
        return in_box
    rest = text[stated[-1].end() :]
    delimited = _DELIMITED.match(rest)
    if delimited:
        return next(part for part in delimited.groups() if part).strip()
    # A sentence ends at a full stop before a space; the one in 3.5 is none.
    return re.split(r"\n|\.(?=\s|$)", rest.strip(" \n*:"))[0].strip(" *$") or None


def read_yes_no(text: str, *, last: bool = False) -> str | None:
    """TruthfulQA: ``"yes"`` or ``"no"``, whichever word stands first (with ``last``: last, for a chain of thought)."""
    words: list[str] = re.findall(r"\b(yes|no)\b", text, re.IGNORECASE)
    return words[-1 if last else 0].lower() if words else None
