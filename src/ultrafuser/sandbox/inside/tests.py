"""The process of the tests: they run here, with stand-ins for what the program under test defines in its own process.

A call of a stand-in goes to the program and brings back a plain value, so nothing of the program's (a lying ``__eq__``, a changed
built-in function) is ever here. Tests can call, read attributes of, and iterate over stand-ins; changed arguments come back.
"""

from __future__ import annotations

import builtins
import os
import sys

from . import values
from .channel import Channel, meet
from .confine import run_confined

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType
    from typing import Any

FILE = "<tests>"
REASON_CHARACTERS = 300


def supervise(job: dict[str, Any], report: Callable[[Any], None]) -> None:
    """Reports return code, whether time ran out, and the verdict (see `judge`) if the tests came to an end."""

    def work(result: int) -> None:
        program = Program(Channel(job["reader"], job["writer"]))
        os.write(result, values.encode(judge(job["source"], program)))

    meet(job["reader"], job["writer"])
    returncode, timed_out, written = run_confined(work, job, keep=(job["reader"], job["writer"]))
    report({"returncode": returncode, "timed_out": timed_out, "verdict": values.decode(written) if written else None})


def judge(tests: str, program: Program) -> dict[str, Any]:
    """Run the tests. They pass if they come to their end and the program is still there then."""
    try:
        code = compile(tests, FILE, "exec", dont_inherit=True)
        exec(code, {"__name__": "tests"} | program.definitions(needed_names(code)))
        return {"passed": not program.gone, "gone": program.gone, "reason": "passed"}
    except BaseException as error:
        return {"passed": False, "gone": program.gone, "reason": reason(error, tests.splitlines())}


def needed_names(code: CodeType) -> set[str]:
    """The names that the tests may look up, so far as they do not begin with two underscores."""
    inner = [needed_names(constant) for constant in code.co_consts if isinstance(constant, type(code))]
    return {name for name in code.co_names if not name.startswith("__")}.union(*inner)


def reason(error: BaseException, lines: list[str]) -> str:
    """The exception, with the failing line of the tests where it has no message."""
    text, trace = str(error), error.__traceback__
    while trace is not None and not text:
        if trace.tb_frame.f_code.co_filename == FILE and trace.tb_next is None:
            text = lines[trace.tb_lineno - 1].strip()
        trace = trace.tb_next
    return f"{type(error).__name__}: {text}"[:REASON_CHARACTERS]


class ProgramGone(BaseException):
    """The program's process has ended, or answers nonsense."""


class Program:
    """The other process, as the tests see it."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.gone = False

    def definitions(self, needed: set[str]) -> dict[str, Any]:
        """What the program defines of the needed names.

        Its own version of a built-in name is taken only if it defines none but those: ``sum`` may be what is tested, but the
        tests of ``mean`` are not to use the ``abs`` of the program.
        """
        defined = self.ask("names", sorted(needed)).items()
        names = {name: value if kind == "value" else own_module(value) for name, (kind, value) in defined if name in needed}
        ordinary = {name: value for name, value in names.items() if not hasattr(builtins, name)}
        return ordinary or names

    def ask(self, request: str, *arguments: Any) -> Any:
        """The program's answer; raises what it raised."""
        try:
            self.channel.send((request, *arguments), refer)
        except BrokenPipeError:
            raise self.lost() from None
        try:
            answer = values.decode(self.channel.receive(), lambda number: StandIn(self, number))
            outcome, content, changed = answer
        except Exception:
            raise self.lost() from None
        if outcome == "raised":
            raise rebuilt(content, changed)
        if changed is not None:
            updated(arguments, changed)
        return content

    def lost(self) -> ProgramGone:
        self.gone = True
        return ProgramGone("the program has ended")


class StandIn:
    """Stands for an object of the program that is no plain value: a function, a class and its instances, an iterator."""

    def __init__(self, program: Program, number: int) -> None:
        self._program, self._number = program, number

    def __call__(self, *positional: Any, **named: Any) -> Any:
        return self._program.ask("call", self, positional, named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self._program.ask("attribute", self, name)

    def __iter__(self) -> Iterator[Any]:
        iterator: Iterator[Any] = self._program.ask("iterate", self)
        return iterator

    def __next__(self) -> Any:
        return self._program.ask("next", self)


def refer(value: Any) -> int | None:
    return value._number if type(value) is StandIn else None


def own_module(name: str) -> Any:
    """This process's own module of the standard library."""
    return __import__(name, fromlist=["*"]) if name.partition(".")[0] in sys.stdlib_module_names else None


def rebuilt(names: list[str], arguments: tuple[Any, ...]) -> BaseException:
    """An exception of the first of the named types that is built in."""
    for name in names:
        kind = getattr(builtins, name, None)
        if isinstance(kind, type) and issubclass(kind, BaseException):
            try:
                return kind(*arguments)
            except TypeError:
                continue
    return Exception(*arguments)


def updated(old: Any, new: Any) -> Any:
    """``old`` where it could be made equal to ``new`` in place, else ``new``."""
    if type(old) is not type(new):
        return new
    if isinstance(old, tuple):
        return tuple(map(updated, old, new)) if len(old) == len(new) else new
    if isinstance(old, list):
        old[:] = [*map(updated, old, new), *new[len(old) :]]
    elif isinstance(old, dict):
        merged = {key: updated(old[key], value) if key in old else value for key, value in new.items()}
        old.clear()
        old.update(merged)
    elif isinstance(old, set):
        old.clear()
        old.update(new)
    else:
        return new
    return old
