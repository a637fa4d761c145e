"""The restricted mode: a program may name neither what leads into the interpreter nor any module that is not in a list."""

from __future__ import annotations

import ast
import builtins
import sys
import types
from collections.abc import Iterator
from typing import Any

# Frames, code objects and tracebacks lead from a generator or an exception to everything in the process.
INNER_PREFIXES = ("_", "gi_", "cr_", "ag_", "f_", "tb_", "co_")
# A format looks up attributes by a text that is made later; what it finds on its way is in the error where it then fails.
INNER_NAMES = ("format", "format_map", "obj")
BUILTINS = """
    ArithmeticError AssertionError AttributeError BaseException Ellipsis EOFError Exception False FloatingPointError
    GeneratorExit IndexError KeyError KeyboardInterrupt LookupError MemoryError NameError None NotImplemented
    NotImplementedError OverflowError RecursionError RuntimeError StopIteration SystemExit True TypeError
    UnboundLocalError UnicodeError ValueError ZeroDivisionError abs all any ascii bin bool bytearray bytes callable chr
    classmethod complex dict divmod enumerate filter float format frozenset hash hex id int isinstance issubclass iter len
    list map max min next object oct ord pow print property range repr reversed round set slice sorted staticmethod str sum
    super tuple type zip __build_class__
""".split()  # noqa: SIM905


def parse(source: str, file: str) -> ast.Module:
    """The program; NameError where it names an attribute or global by which it could leave the restricted mode."""
    tree = ast.parse(source, file)
    for node in ast.walk(tree):
        for name in telling_names(node):
            inner = name.startswith(INNER_PREFIXES) and name not in ("__name__", "__init__")
            if inner or name in INNER_NAMES:
                raise NameError(f"'{name}' is not allowed here")
    return tree


def telling_names(node: ast.AST) -> list[str]:
    """The names by which a node reaches into an object or a module, and those of globals that begin with two underscores."""
    if isinstance(node, ast.Attribute):
        return [node.attr]
    if isinstance(node, ast.MatchClass):  # by position are the attributes that the class names, which may be any
        return node.kwd_attrs + ["__match_args__"] * bool(node.patterns)
    if isinstance(node, ast.ImportFrom):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.Name) and node.id.startswith("__"):
        return [node.id]
    if isinstance(node, ast.Constant):
        return []
    # Definitions, patterns and ``as`` bind names, too. With builtins of its own, a program's imports find all modules.
    return [name for name in identifiers(node) if name == "__builtins__"]


def identifiers(node: ast.AST) -> Iterator[str]:
    for field in vars(node).values():
        yield from (text for text in (field if isinstance(field, list) else [field]) if isinstance(text, str))


def global_names(imports: list[str]) -> dict[str, Any]:
    return {"__name__": "__main__", "__builtins__": restricted_builtins(imports)}


def restricted_builtins(imports: list[str]) -> dict[str, Any]:
    allowed = {name: public_part(name) for name in imports}

    def import_allowed(name: str, *_: Any) -> types.SimpleNamespace:
        if name not in allowed:
            raise ImportError(f"import of '{name}' is not allowed here")
        return types.SimpleNamespace(**allowed[name])  # a new one, since it can be changed

    return {name: getattr(builtins, name) for name in BUILTINS} | {"__import__": import_allowed}


def stop_imports() -> None:
    """From now on nothing is imported in this process, whoever asks.

    Python itself imports what a program names: codecs and, from 3.13 on, the module of an ImportError that nobody caught, to
    guess what was meant. ``venv.__main__`` then acts at once.
    """
    sys.meta_path.clear()


def public_part(name: str) -> dict[str, Any]:
    """What is in a module, without its private names and without the modules that it imported itself (``statistics.sys``)."""
    module = __import__(name, fromlist=["*"])
    names = [key for key in dir(module) if not key.startswith("_")]
    return {key: value for key in names if not isinstance(value := getattr(module, key), types.ModuleType)}
