"""The process of a program under test: it does what the process of the tests asks for, and never sees the tests."""

from __future__ import annotations

from . import values
from .channel import Channel, meet
from .confine import run_confined
from .program import execute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def supervise(job: dict[str, Any], report: Callable[[Any], None]) -> None:
    """Reports the return code and whether time ran out."""

    def work(result: int) -> None:
        Candidate(job["source"], Channel(job["reader"], job["writer"])).serve()

    meet(job["reader"], job["writer"])
    returncode, timed_out, _ = run_confined(work, job, keep=(job["reader"], job["writer"]))
    report({"returncode": returncode, "timed_out": timed_out})


class Candidate:
    """The program, and its objects that cannot be sent, by the numbers under which the tests know them.

    An answer is ``("returned", value, changed arguments or None)`` or ``("raised", names of the types, arguments)``.
    """

    def __init__(self, source: str, channel: Channel) -> None:
        self.source, self.channel = source, channel
        self.objects: list[Any] = []
        self.requests: dict[str, Callable[..., Any]] = {
            "names": self.names, "call": lambda function, positional, named: function(*positional, **named),
            "attribute": getattr, "iterate": iter, "next": next,
        }  # fmt: skip

    def serve(self) -> None:
        while True:
            try:
                content = self.channel.receive()
            except EOFError:
                return
            answer = self.answer(content)
            try:
                self.channel.send(answer, self.refer)
            except BrokenPipeError:
                return
            except Exception as error:
                self.channel.send(raised(error), self.refer)

    def answer(self, content: bytes) -> tuple[Any, ...]:
        try:
            request, *arguments = values.decode(content, self.objects.__getitem__)
            returned = self.requests[request](*arguments)
            before = values.decode(content, self.objects.__getitem__)[1:]
            return "returned", returned, None if before == tuple(arguments) else tuple(arguments)
        except BaseException as error:
            return raised(error)

    def names(self, wanted: list[str]) -> dict[str, Any]:
        """Run the program; returns what it defines of the names that the tests use. (A module goes by its name.)"""
        defined = execute(self.source, None, "program")
        return {
            name: ("module", defined[name].__name__) if isinstance(defined[name], type(values)) else ("value", defined[name])
            for name in wanted
            if name in defined
        }

    def refer(self, value: Any) -> int:
        self.objects.append(value)
        return len(self.objects) - 1


def raised(error: BaseException) -> tuple[Any, ...]:
    return "raised", [kind.__name__ for kind in type(error).__mro__], error.args
