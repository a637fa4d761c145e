"""What a piece of Python defines, returns and needs, from its syntax alone."""

from __future__ import annotations

import ast
import builtins
import warnings
from collections.abc import Iterable, Iterator, Sequence

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_GIVING = (*_DEFINITIONS, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)


def parses(code: str) -> bool:
    """Whether ``code`` is Python."""
    return _stumbles(code) is None


def parsing_part(code: str) -> str:
    """The longest beginning of ``code`` that ends where the parser first stumbles, and parses."""
    lines = code.split("\n")
    while lines:
        error = _stumbles("\n".join(lines))
        if error is None:
            break
        lines = lines[: max(0, min(error, len(lines)) - 1)]
    return "\n".join(lines)


def returns(code: str, name: str) -> bool:
    """Whether ``code`` defines ``name`` as more than a stub: a function that returns or yields something itself, or a value."""
    if not parses(code):
        return False
    given = [node for node in _statements(code) if name in _given(node)]
    return any(not isinstance(node, _DEFINITIONS) or any(map(_is_return, _own_nodes(node))) for node in given)


def statement_lines(code: str) -> set[int]:
    """The lines, from 0, that begin a statement at the left margin, a decorator of one, or what it decorates."""
    statements = _statements(code)
    decorators = [one for node in statements for one in getattr(node, "decorator_list", ())]
    places = [(node.lineno, node.col_offset) for node in statements] + [(one.lineno, one.col_offset - 1) for one in decorators]
    return {line - 1 for line, column in places if column == 0}


def needed_part(code: str, name: str, others: Iterable[str]) -> str:
    """``code`` up to its last definition of ``name``, with definitions that this needs from the rest and ``others`` before it."""
    statements = _statements(code) if parses(code) else ()
    given = [node for node in statements if name in _given(node)]
    if not given:
        return code
    end = given[-1].end_lineno or 0
    for node in statements:  # one that begins on the last line, after a semicolon, may end on a later one
        if node.lineno <= end:
            end = max(end, node.end_lineno or 0)
    lines = code.split("\n")
    program, rest = "\n".join(lines[:end]), "\n" * end + "\n".join(lines[end:])
    supplies = [one for source in (rest, *others) if parses(source) for one in _supplies(source)]
    while missing := _missing(program):
        found = next((supply for supply in supplies if supply[0] & missing), None)
        if found is None:
            break
        supplies.remove(found)
        program = f"{found[1]}\n{program}"
    return program


def future_first(program: str) -> str:
    """``program`` with its ``from __future__`` imports, a line each, before everything else, where Python wants them."""
    lines = program.split("\n")
    return "\n".join(sorted(lines, key=lambda line: not line.startswith("from __future__ import")))


def _supplies(code: str) -> Iterator[tuple[set[str], str]]:
    """The definitions of ``code``: the names that each gives, and its source."""
    lines = code.split("\n")
    for node in _statements(code):
        if isinstance(node, _GIVING):
            first = min(part.lineno for part in (node, *getattr(node, "decorator_list", ())))
            yield _given(node), "\n".join(lines[first - 1 : node.end_lineno])


def _missing(program: str) -> set[str]:
    """The names that ``program`` uses and does not define anywhere."""
    nodes = [node for statement in _statements(program) for node in ast.walk(statement)]
    used = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return used - set(_bound(nodes)) - set(dir(builtins))


def _given(statement: ast.stmt) -> set[str]:
    """The names that a statement defines for those after it."""
    return set(_bound([statement] if isinstance(statement, _DEFINITIONS) else ast.walk(statement)))


def _bound(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, _DEFINITIONS):
            yield node.name
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).partition(".")[0]
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.name


def _own_nodes(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function without those of the functions and classes in it."""
    left = list(ast.iter_child_nodes(function))
    while left:
        node = left.pop()
        yield node
        if not isinstance(node, (*_DEFINITIONS, ast.Lambda)):
            left += ast.iter_child_nodes(node)


def _is_return(node: ast.AST) -> bool:
    return isinstance(node, ast.Yield | ast.YieldFrom) or (isinstance(node, ast.Return) and node.value is not None)


def _statements(code: str) -> Sequence[ast.stmt]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(code).body


def _stumbles(code: str) -> int | None:
    """The line at which the parser stumbles; None if ``code`` parses."""
    try:
        _statements(code)
    except SyntaxError as error:
        return error.lineno or 1
    except (ValueError, RecursionError, MemoryError):  # null bytes, or brackets nested too deep for the parser
        return 1
    return None
