"""Judge answers exactly: text word by word, math by the number after ``####``, code by calling its function in the sandbox.

What a code answer is to say before its function is judged word by word, as text is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from ultrafuser.miniworld.code_tasks import to_python
from ultrafuser.miniworld.task import THEN, Part, Task
from ultrafuser.sandbox import FunctionCalls, Limits, call_functions

LIMITS = Limits(wall_seconds=20.0, cpu_seconds=1.0, memory_bytes=256 * 2**20, output_bytes=2**14)


def check_answers(tasks: Sequence[Task], answers: Sequence[str]) -> list[bool]:
    """Whether each answer is right in all its parts. Programs run in processes of their own, many at a time."""
    verdicts: list[bool] = []
    programs: list[tuple[int, Part, str]] = []  # (task, part, answer) whose verdict needs a run
    for index, (task, answer) in enumerate(zip(tasks, answers, strict=True)):
        pieces = _pieces(task, answer)
        pairs = list(zip(task.parts, pieces, strict=False))
        verdicts.append(len(pieces) == len(task.parts) and all(_right_without_running(*pair) for pair in pairs))
        if verdicts[-1]:
            programs += [(index, part, piece) for part, piece in pairs if part.domain == "code"]
    for (index, _, _), right in zip(programs, _run([(part, piece) for _, part, piece in programs]), strict=True):
        verdicts[index] &= right
    return verdicts


def _pieces(task: Task, answer: str) -> list[str]:
    """The answer's parts; the only part of a task of one part is the whole answer, whatever is in it."""
    return [answer] if len(task.parts) == 1 else answer.split(f" {THEN} ")


def _right_without_running(part: Part, answer: str) -> bool:
    """The verdict on text and math, and on what code says before its function, which is still to be run."""
    if part.domain == "text":
        return answer.split() == part.answer.split()
    if part.domain == "math":
        return answer.split("#### ")[1:] == [str(part.check["value"])]
    return _said_and_program(answer)[0].split() == _said_and_program(part.answer)[0].split()


def _said_and_program(answer: str) -> tuple[str, str]:
    said, _, program = answer.rpartition(f" {THEN} ")
    return said, program


def _run(programs: Sequence[tuple[Part, str]]) -> list[bool]:
    """Call every program's function; right is one that returns exactly what is expected (``1`` is not ``True``)."""
    jobs = [
        FunctionCalls(to_python(_said_and_program(answer)[1]), part.check["function"], part.check["arguments"])
        for part, answer in programs
    ]
    returned = call_functions(jobs, limits=LIMITS)
    return [json.dumps(values) == json.dumps(part.check["returns"]) for values, (part, _) in zip(returned, programs, strict=True)]
