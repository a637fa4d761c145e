r"""What a model's free text answers: one rule per kind of task, each a pure function that returns None when it finds nothing.

The sentence that a reader sees next to a score stands in `catalogue.py`; here is the rule itself. None counts as a wrong answer
and is reported separately, so that "cannot do it" and "does not say it in a form we can read" are told apart. `read_program`
has a file of its own, `extract_program.py`.

Departures from lm-evaluation-harness: it reads GSM8K by two filters, a strict and a flexible one; ours is one rule, close to
the flexible one. It reads MATH by a phrase that only its four-shot prompt elicits.
"""

from __future__ import annotations

import re
from fractions import Fraction

from ultrafuser.testsets_hub import last_boxed

_NUMBER = re.compile(
    r"(?:(?<![\w)])-)?"  # a minus sign, unless it stands after something it could be subtracted from
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?:/[0-9]+)?"
)
_LONGEST_NUMBER = 100  # characters; Python refuses to turn thousands of digits into a number


def read_number(text: str) -> str | None:
    r"""GSM8K: the number after the last ``####``, or else the last number of the text, as a reduced decimal-free string.

    Commas, currency and percent signs do not matter; ``18``, ``18.00`` and ``$18.`` are the same, ``1/2`` is one number and
    equals ``0.5``. The result is canonical: equal numbers give equal strings (``"18"``, ``"1/2"``).
    """
    text = re.sub(r"\\?[$%]|\\[!,]", "", text.replace("{,}", ",").replace("−", "-"))
    _, mark, after = text.rpartition("####")
    marked = _NUMBER.search(after) if mark else None
    found = marked.group() if marked else next(iter(_NUMBER.findall(text)[::-1]), None)
    if found is None:
        return None
    number, _, denominator = found.replace(",", "").partition("/")
    if len(found) > _LONGEST_NUMBER or (denominator and not int(denominator)):
        return found
    return str(Fraction(number) / int(denominator or 1))


_STATED = re.compile(r"\banswer\s*(?:is|:)\s*:?", re.IGNORECASE)
_DELIMITED = re.compile(r"[\s*:]*(?:\$\$?(.+?)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\])", re.DOTALL)


def read_math(text: str) -> str | None:
    r"""MATH: what the last ``\boxed{..}`` holds, or else what follows the last "answer is" (or "answer:") in its sentence."""
    boxed = last_boxed(text)
    stated = list(_STATED.finditer(text))
    if boxed is not None or not stated:
        return boxed
    rest = text[stated[-1].end() :]
    delimited = _DELIMITED.match(rest)
    if delimited:
        return next(part for part in delimited.groups() if part).strip()
    # A sentence ends at a full stop before a space; the one in 3.5 is none.
    return re.split(r"\n|\.(?=\s|$)", rest.strip(" \n*:"))[0].strip(" *$") or None


def read_letter(text: str, letters: str = "ABCDE") -> str | None:
    r"""SAT-Math and AQuA: the capital letter of the option that the text chooses.

    In this order: a letter in ``\boxed{}``; the last one declared ("the answer is B", "Answer: (B)", "option B is correct");
    the one that the text begins with ("B) 5"); the last one alone on a line; the only one named in brackets or after "option".
    (The only one: a text that merely repeats the options has chosen none.)
    """
    boxed = re.fullmatch(rf"(?:\\\w+\{{)?\W*([{letters}])\W*", last_boxed(text) or "")
    if boxed:
        return boxed.group(1)
    letter = rf"[\s*_$(\[:]*(?:\\\w+\{{)?([{letters}])(?![\w'’])"
    declared = (
        rf"\b(?i:ans(?:wer)?|correct option|correct choice)\W{{0,4}}(?i:is|would be|should be)?:?\s*(?i:option|choice)?{letter}"
        rf"|\b([{letters}])\b\W{{0,3}}(?i:is (?:the )?(?:correct|right|best|answer))\b"
    )
    begins = rf"\A[\s*(\[]*([{letters}])(?:[).:,\]*]|\s*$)"
    alone = rf"^\W*([{letters}])\W*$"
    repeats = len(set(re.findall(rf"^[\s*(]*([{letters}])[).:]", text, re.MULTILINE))) > 1
    for pattern in (declared, alone) if repeats else (declared, begins, alone):
        found = list(re.finditer(pattern, text, re.MULTILINE))
        if found:
            return next(group for group in found[-1].groups() if group)
    named = set(re.findall(rf"\(([{letters}])\)", text)) or set(re.findall(rf"\b(?i:option|choice){letter}", text))
    return named.pop() if len(named) == 1 else None


def read_yes_no(text: str, *, last: bool = False) -> str | None:
    """TruthfulQA: ``"yes"`` or ``"no"``, whichever word stands first (with ``last``: last, for a chain of thought)."""
    words: list[str] = re.findall(r"\b(yes|no)\b", text, re.IGNORECASE)
    return words[-1 if last else 0].lower() if words else None
