"""Does the code of an answer parse? Python by its own parser; of other languages only the brackets are counted.

Blocks without a language are not judged: they may be output, a file tree or a formula. Nothing is run here, see `programs.py`.
"""

from __future__ import annotations

import ast
import re
import textwrap
import warnings
from collections.abc import Iterable, Iterator

from ultrafuser.synth.quality.markdown import Block

PYTHON = {"python", "py", "python3", "py3"}
BRACED = set("c cpp c++ csharp c# cs java javascript js typescript ts go kotlin swift json".split())  # noqa: SIM905
CLOSING = {")": "(", "]": "[", "}": "{"}
PROMPT = re.compile(r"^\s*(>>>|\.\.\.)( |$)", re.MULTILINE)
NOTEBOOK = re.compile(r"^\s*[%!]", re.MULTILINE)  # IPython's magics and shell lines are not Python
COMMENT = re.compile(r"^( +)#", re.MULTILINE)
# What holds no code of its language: comments, raw strings of C++, strings and characters (which end with their line), patterns
# of JavaScript (after a sign that no division follows).
QUOTED = re.compile(
    r"""//[^\n]*|/\*.*?(?:\*/|\Z)|R"(?P<raw>\w*)\(.*?\)(?P=raw)"|`(?:\\.|[^`\\])*(?:`|\Z)|"""
    r""""(?:\\.|[^"\\\n])*(?:"|$)|'(?:\\.|[^'\\\n])*(?:'|$)|"""
    r"""(?<=[=(,:\[!&|?{};])\s*/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\[\n])+/""",
    re.DOTALL | re.MULTILINE,
)


def code_problem(blocks: Iterable[Block]) -> str | None:
    """What is wrong with the first block that does not parse, or None."""
    return next(filter(None, map(_block_problem, blocks)), None)


def python_problem(code: str) -> str | None:
    """The parser's complaint about ``code``, such as ``line 3: invalid syntax``, or None. Fragments may be indented."""
    if NOTEBOOK.search(code):
        return None
    if PROMPT.search(code):
        code = "\n".join(_typed_lines(code))
    code = textwrap.dedent(code.expandtabs())
    problem = _syntax_error(code)
    if problem and "expected an indented block" in problem:
        problem = _syntax_error(COMMENT.sub(r"\1pass #", code))  # a body that is only described is fine in an explanation
    return problem


def bracket_problem(code: str) -> str | None:
    """The first bracket without its partner, or None; strings and comments do not count."""
    open_brackets: list[str] = []
    for character in re.findall(r"[()\[\]{}]", QUOTED.sub("", code)):
        if character not in CLOSING:
            open_brackets.append(character)
        elif not open_brackets or open_brackets.pop() != CLOSING[character]:
            return f"'{character}' closes nothing"
    return f"'{open_brackets[-1]}' is never closed" if open_brackets else None


def _block_problem(block: Block) -> str | None:
    if block.language in PYTHON:
        return python_problem(block.code)
    return bracket_problem(block.code) if block.language in BRACED else None


def _typed_lines(code: str) -> Iterator[str]:
    """What was typed in an interactive session, without prompts and output."""
    for line in code.split("\n"):
        if match := PROMPT.match(line):
            yield line[match.end() :]


def _syntax_error(code: str) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of "\d" in a plain string and the like
            ast.parse(code)
    except SyntaxError as error:
        return f"line {error.lineno}: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:  # a null byte; brackets nested too deep
        return str(error) or type(error).__name__
    return None
