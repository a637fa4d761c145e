"""The Python program in an answer to HumanEval or MBPP. Pure functions: nothing is run here, see `ultrafuser.sandbox`.

`read_program` looks for the function, in fences or out of them; `python_code.py` says what a piece of Python defines and needs.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from itertools import islice

from ultrafuser.evaluate.python_code import needed_part, parses, parsing_part, returns, statement_lines

_OPENS = re.compile(r"(?:`{3,}|~{3,})(?:[^\n`~]*\n)?")
# Some fences are closed on the last line of code; one that never is (an answer cut off) holds the rest of the text.
_CLOSES = re.compile(r"^[ \t]*(?:`{3,}|~{3,})|(?:`{3,}|~{3,})[ \t]*$|\Z", re.MULTILINE)
_MOST_CLOSINGS = 8  # that are tried for one fence
_CODE_LINE = re.compile(r"(?:from|import|def|class|async def)\s|@\w|\w+\s*=")


def read_program(text: str, entry_point: str, head: str = "") -> str | None:
    """The code of ``text`` that defines ``entry_point``, or None if there is none.

    In this order: the first fenced block that defines it as something that returns, or else the first that defines it at all;
    bare code that does, without the prose before and after it; a function body alone, fenced or bare, which is put under
    ``head``, the head of the function as the question gave it. What follows the function (the model's own tests) is left out,
    but for definitions that it needs; those are taken from the other blocks too.
    """
    text = re.sub(r"\r\n?", "\n", text)  # for Python too that is the end of a line
    blocks = list(_fenced(text))
    defining = re.compile(rf"^(?:(?:async )?def {entry_point}\b|{entry_point}\s*(?::[^=\n]+)?=(?!=))", re.MULTILINE)
    if defining.search("\n".join((*blocks, text))):
        fenced = [code for code in blocks if defining.search(code)]
        codes = (_sound_part(code, defining) for code in fenced) if fenced else filter(defining.search, _bare_code(text))
        return needed_part(_first_that_returns(codes, entry_point), entry_point, blocks)
    bodies = (_join(head, body, entry_point) for body in (*blocks, text)) if head else iter(())
    return next((needed_part(program, entry_point, blocks) for program in bodies if program), None)


def _fenced(text: str) -> Iterator[str]:
    """What stands between fences; dedented where it only parses so. A docstring may hold fences: the first end that parses."""
    place = 0
    while opening := _OPENS.search(text, place):
        start = opening.end()
        ends = [(closing.start(), closing.end()) for closing in islice(_CLOSES.finditer(text, start), _MOST_CLOSINGS)]
        codes = [(form, after) for end, after in ends for form in (text[start:end], textwrap.dedent(text[start:end]))]
        code, place = next((one for one in codes if parses(one[0])), codes[0])
        yield code


def _sound_part(code: str, defining: re.Pattern[str]) -> str:
    """``code`` without its end if only that does not parse: an answer cut off after the function."""
    part = parsing_part(code)
    return part if defining.search(part) else code


def _first_that_returns(codes: Iterable[str], entry_point: str) -> str:
    """The first of ``codes`` whose function returns something; or else, if all are stubs, the first."""
    seen = []
    for code in codes:
        if returns(code, entry_point):
            return code
        seen.append(code)
    return seen[0]


def _bare_code(text: str) -> Iterator[str]:
    """What could be code in running text: from each line that begins like code to the last line with which it still parses.

    Who goes on has no use for a piece; then one from a later statement of it, which ends where it ends, is of no use either.
    """
    lines, useless = text.split("\n"), set[int]()
    for start, line in enumerate(lines):
        if _CODE_LINE.match(line) and start not in useless:
            code = parsing_part("\n".join(lines[start:]))
            yield code
            useless.update(start + place for place in statement_lines(code))
    # Code that does not parse is still an answer: a wrong one.
    yield text


def _join(head: str, body: str, entry_point: str) -> str | None:
    """``head`` with ``body`` under it, if that makes a function that returns something."""
    forms = (body, "    " + body.lstrip(), textwrap.indent(textwrap.dedent(body), "    "))
    programs = (parsing_part(head.rstrip("\n") + "\n" + form) for form in forms)
    return next((program for program in programs if returns(program, entry_point)), None)
