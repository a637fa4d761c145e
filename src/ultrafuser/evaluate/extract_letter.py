r"""The option that an answer to SAT-Math or AQuA chooses. A pure function, `read_letter`, over one table of ways to choose."""

from __future__ import annotations

import re

from ultrafuser.boxed import last_boxed
from ultrafuser.evaluate.extract import STATED

# In all patterns here [A-Z] stands for the letters of the question.
_CALLED = r"(?i:(?:the )?(?:option|choice)\b(?!:))?"
# An option's letter in any wrapping: "(B)", "**B**", "$\text{B}$", "“B”". E in "E = 5" and A in "A's" are no options.
_WRAPPED = rf"""{_CALLED}[\s*_$(\[{{:"'`“‘<]*(?:\\[a-z]+\{{)?\(?([A-Z])(?!\w|['’]\w|\s*=)"""
# "The answer is A or B" chooses none.
_OR = r"[)\]}*_$]*[^\S\n]+(?i:or)[^\S\n]+"
_ONE_OF_TWO = rf"(?!{_OR}{_CALLED}\W{{0,3}}(?:[a-z]+\{{)?\W{{0,2}}[A-Z]\b)"
_BEGINS_LINE = r"^[\s*(\[]*([A-Z])[).:\]*]+"
# Tried in this order; of the first way that occurs, its last occurrence counts. The second field: does it choose an option even
# in a text that repeats them all?
_WAYS = (
    # Declared: "the answer is B", "**Answer:** option (B)", "Ans. B", "the correct choice would be B".
    (
        rf"(?:{STATED}\W{{0,4}}|\b(?i:ans|answer|(?:correct|right) (?:option|choice|one))\b[\s.:]*"
        rf"(?i:is\b|(?:would|should|must|will) be\b)?\W{{0,4}}){_WRAPPED}{_ONE_OF_TWO}"
        # "B is correct".
        r"|\b([A-Z])\b\W{0,3}(?i:is (?:the )?(?:correct|right|best|answer))\b",
        True,
    ),
    # The first thing said: "B) 5, because ..".
    (r"\A[\s*(\[]*([A-Z])(?:[).:,\]*]|\s*\Z)", False),
    # Alone on a line.
    (r"^\W*([A-Z])\W*$", True),
    # Concluded, at the end of a line: "So B.", "I choose option C", "it must be C".
    (rf"\b(?i:so|thus|therefore|hence|(?:it|which) is|it['’]s|must be|choose|pick|select)\b,?\s+{_WRAPPED}\W*$", True),
    # The last line: "B) 5".
    (rf"{_BEGINS_LINE}\s[^\n]*\Z", False),
)
_IN_BOX = r"\A(?:\\[a-z]+|[^\w\\]|(?i:option|choice)\b)*([A-Z])(?=[).:}\]*]|\\[ ,]|\s*\Z)"  # "B) 12", "\text{(B)}"
_NAMED = (r"\(([A-Z])\)", rf"\b(?i:option|choice)\b{_WRAPPED}")
_DENIED = rf"(?:\bnot|n['’]t)\s+{_WRAPPED}"
_OPTION = re.compile(r"\b([A-C])[).:]")


def read_letter(text: str, letters: str = "ABCDE") -> str | None:
    r"""SAT-Math and AQuA: the capital letter of the option that the text chooses.

    In this order: a letter in ``\boxed{}``; the last one declared ("the answer is B", "option B is correct"); the one that the
    text begins with ("B) 5"); the last one alone on a line; the last one at the end of a conclusion ("So B."); the one that
    begins the last line; the only one named in brackets or after "option". (The only one: a text that merely repeats the options
    has chosen none.) A letter after "not" is passed over.
    """
    text = re.sub(_DENIED.replace("[A-Z]", f"[{letters}]"), "not", text)
    repeats = len(set(_found(_BEGINS_LINE, text, letters))) > 1 or any(map(_in_a_row, text.split("\n")))
    ways = (_found(pattern, text, letters) for pattern, always in _WAYS if always or not repeats)
    for found in (_found(_IN_BOX, last_boxed(text) or "", letters), *ways):
        if found:
            return found[-1]
    for pattern in _NAMED:
        named = set(_found(pattern, text, letters))
        if named:
            return named.pop() if len(named) == 1 else None
    return None


def _in_a_row(line: str) -> bool:
    """Whether a line has "A)", then "B)", then "C)", whatever is between them."""
    letters = iter(_OPTION.findall(line))
    return all(letter in letters for letter in "ABC")  # each goes on where the one before was found


def _found(pattern: str, text: str, letters: str) -> list[str]:
    """The letters that ``pattern`` finds in ``text``."""
    matches = re.finditer(pattern.replace("[A-Z]", f"[{letters}]"), text, re.MULTILINE)
    return [next(letter for letter in match.groups() if letter) for match in matches]
