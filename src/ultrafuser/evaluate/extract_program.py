"""The Python program in an answer to HumanEval or MBPP. A pure function: nothing is run here, see `ultrafuser.sandbox`."""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Iterator

# A fence that is never closed (an answer cut off) holds the rest of the text.
_FENCE = re.compile(r"^[ \t]*```[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)
_CODE_LINE = re.compile(r"(?:from|import|def|class|async def)\s|@\w|\w+\s*=")


def read_program(text: str, entry_point: str, head: str = "") -> str | None:
    """The code of ``text`` that defines ``entry_point``, or None if there is none.

    In this order: the first fenced block that defines it; bare code that does, without the prose before and after it; a
    function body alone, fenced or bare, which is put under ``head``, the head of the function as the question gave it.
    """
    fenced = _FENCE.findall(text)
    blocks = [*fenced, *map(textwrap.dedent, fenced)]
    defining = re.compile(rf"^(?:async )?def {re.escape(entry_point)}\b|^{re.escape(entry_point)}\s*=", re.MULTILINE)
    if defining.search("\n".join((*blocks, text))):
        return next(code for code in (*blocks, *_bare_code(text)) if defining.search(code))
    bodies = (_join(head, body, entry_point) for body in (*fenced, text)) if head else iter(())
    return next((program for program in bodies if program), None)


def _bare_code(text: str) -> Iterator[str]:
    """What could be code in running text: from each line that begins like code to the last line with which it still parses."""
    lines = text.splitlines()
    for start, line in enumerate(lines):
        if _CODE_LINE.match(line):
            yield _parsing_part(lines[start:])
    # Code that does not parse is still an answer: a wrong one.
    yield text


def _parsing_part(lines: list[str]) -> str:
    """The longest beginning of ``lines`` that ends where the parser first stumbles, and parses."""
    while lines:
        error = _syntax_error("\n".join(lines))
        if error is None:
            break
        lines = lines[: max(0, min(error, len(lines)) - 1)]
    return "\n".join(lines)


def _join(head: str, body: str, entry_point: str) -> str | None:
    """``head`` with ``body`` under it, if that makes a function that returns something."""
    forms = (body, "    " + body.lstrip(), textwrap.indent(textwrap.dedent(body), "    "))
    for form in forms:
        program = _parsing_part((head.rstrip("\n") + "\n" + form).splitlines())
        functions = [node for node in _nodes(program) if isinstance(node, ast.FunctionDef) and node.name == entry_point]
        if any(isinstance(node, ast.Return | ast.Yield) for function in functions for node in ast.walk(function)):
            return program
    return None


def _nodes(program: str) -> list[ast.stmt]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(program).body


def _syntax_error(program: str) -> int | None:
    """The line at which ``program`` fails to parse; None if it parses."""
    try:
        _nodes(program)
    except SyntaxError as error:
        return error.lineno or 1
    except (ValueError, RecursionError, MemoryError):  # null bytes, or brackets nested too deep for the parser
        return 1
    return None
