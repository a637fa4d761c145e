"""The inside of the sandbox (`sandbox.py` starts it as ``python -I -S _sandbox_child.py``, a JSON job on standard input).

A job has either a ``program``, which runs in this very process, or ``calls``, each of which runs in a fork of it, so that this
process stays clean and reports one line of JSON per call. Standard library only; few imports, since it starts often.
"""

from __future__ import annotations

import ast
import builtins
import json
import math
import os
import resource
import select
import signal
import sys
import time
import types
from typing import Any

FILE = "<program>"
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


def main() -> None:
    job = json.loads(sys.stdin.buffer.read())
    limits, report = job["limits"], job["report"]
    if "calls" in job:
        os.set_inheritable(report, False)
        for call in job["calls"]:
            os.write(report, json.dumps(call_in_fork(call, job["imports"], limits)).encode() + b"\n")
        return
    close_stdin()
    confine(limits)
    run(job["program"], job["imports"])
    sys.stdout.flush()
    os.write(report, job["nonce"].encode())


def run(source: str, imports: list[str] | None) -> dict[str, Any]:
    """Execute ``source`` as ``__main__``; with ``imports`` a list, in the restricted mode. Returns its global names."""
    names: dict[str, Any] = {"__name__": "__main__"}
    tree = ast.parse(source, FILE)
    if imports is not None:
        refuse_inner_names(tree)
        names["__builtins__"] = restricted_builtins(imports)
    exec(compile(tree, FILE, "exec"), names)
    return names


def refuse_inner_names(tree: ast.AST) -> None:
    """Raise NameError where the program names an attribute or global by which it could leave the restricted mode."""
    for node in ast.walk(tree):
        attributes = [node.attr] if isinstance(node, ast.Attribute) else []
        if isinstance(node, ast.MatchClass):
            attributes = node.kwd_attrs
        if isinstance(node, ast.ImportFrom):
            attributes = [alias.name for alias in node.names]
        if isinstance(node, ast.Name) and node.id.startswith("__") and node.id != "__name__":
            attributes = [node.id]
        for attribute in attributes:
            if attribute.startswith(INNER_PREFIXES) and attribute not in ("__name__", "__init__"):
                raise NameError(f"'{attribute}' is not allowed here")


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


def confine(limits: dict[str, Any]) -> None:
    """Set this process's limits, for good. `SIGALRM` and `SIGXCPU` keep their default action, which is to kill."""
    cpu = math.ceil(limits["cpu_seconds"])
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
    for kind, value in (
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_FSIZE, limits["file_bytes"]),
        (resource.RLIMIT_NOFILE, limits["open_files"]),
        (resource.RLIMIT_NPROC, limits["processes"]),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (value, value))
    signal.setitimer(signal.ITIMER_REAL, limits["wall_seconds"])


def close_stdin() -> None:
    """Let the program read from an empty standard input, not from the job."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)


def call_in_fork(call: dict[str, Any], imports: list[str], limits: dict[str, Any]) -> Any:
    """The list of returned values, or None."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(writer, 3)
            os.closerange(4, 2**16)
            call_here(call, imports, limits, 3)
        finally:
            os._exit(0)
    os.close(writer)
    try:
        return receive(reader, time.monotonic() + limits["wall_seconds"], limits["output_bytes"])
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def call_here(call: dict[str, Any], imports: list[str], limits: dict[str, Any], writer: int) -> None:
    close_stdin()
    confine(limits)
    function = run(call["source"], imports)[call["function"]]
    text = json.dumps([function(*arguments) for arguments in call["arguments"]]).encode()
    while text:
        text = text[os.write(writer, text) :]


def receive(reader: int, deadline: float, most: int) -> Any:
    """The JSON value written to ``reader`` before ``deadline``; None if it is late, too long, or not JSON."""
    text = b""
    while select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
        piece = os.read(reader, 2**16)
        text += piece
        if len(text) > most:
            return None
        if not piece:
            try:
                return json.loads(text)
            except ValueError:
                return None
    return None


if __name__ == "__main__":
    main()
