"""The restricted mode: a program may name neither what leads into the interpreter nor any module that is not in a list."""

from __future__ import annotations

import ast
import builtins
import types
from typing import Any

# Frames, code objects and tracebacks lead from a generator or an exception to everything in the process.
INNER_PREFIXES = ("_", "gi_", "cr_", "ag_", "f_", "tb_", "co_")
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
        for attribute in named_attributes(node):
            if attribute.startswith(INNER_PREFIXES) and attribute not in ("__name__", "__init__"):
                raise NameError(f"'{attribute}' is not allowed here")
    return tree


def named_attributes(node: ast.AST) -> list[str]:
    """The names by which a node reaches into an object or a module, and those of globals that begin with two underscores."""
    if isinstance(node, ast.Attribute):
        return [node.attr]
    if isinstance(node, ast.MatchClass):
        return node.kwd_attrs
    if isinstance(node, ast.ImportFrom):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.Name) and node.id.startswith("__"):
        return [node.id]
    return []


def global_names(imports: list[str]) -> dict[str, Any]:
    return {"__name__": "__main__", "__builtins__": restricted_builtins(imports)}


def restricted_builtins(imports: list[str]) -> dict[str, Any]:
    allowed = {name: public_part(name) for name in imports}

    def import_allowed(name: str, *_: Any) -> types.SimpleNamespace:
        if name not in allowed:
            raise ImportError(f"import of '{name}' is not allowed here")
        return allowed[name]

    return {name: getattr(builtins, name) for name in BUILTINS} | {"__import__": import_allowed}


def public_part(name: str) -> types.SimpleNamespace:
    """A module without its private names and without the modules that it imported itself (``statistics.sys``)."""
    module = __import__(name, fromlist=["*"])
    names = [key for key in dir(module) if not key.startswith("_")]
    return types.SimpleNamespace(
        **{key: value for key in names if not isinstance(value := getattr(module, key), types.ModuleType)}
    )
