"""What a task of the generated world is: one or two parts, each of one domain, each with its own exact check.

A task of two parts reads ``<request> then <request>`` and is answered ``<answer> then <answer>``. The three domains hold such
tasks with both parts in one domain; the mixed set holds those whose parts belong to different domains, so that the domain of
every answer token is known.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

THEN = "then"
DOMAINS = ("text", "code", "math")


@dataclass(frozen=True)
class Part:
    """One request of one domain, with a right answer and what the check needs (see `check.py`).

    ``check`` is ``{}`` (the answer itself), ``{"value": 12}`` (the number after ``####``) or
    ``{"function": name, "arguments": [[..], ..], "returns": [..]}`` (a function to be called).
    """

    domain: str
    family: str
    request: str
    answer: str
    check: dict[str, Any]
    is_link: bool = False  # refers to the answer of the part before it


@dataclass(frozen=True)
class Task:
    """A prompt with its right answer; ``domain`` is ``text``, ``code``, ``math`` or ``mixed``."""

    domain: str
    family: str
    parts: tuple[Part, ...]

    @property
    def prompt(self) -> str:
        return f" {THEN} ".join(part.request for part in self.parts)

    @property
    def answer(self) -> str:
        return f" {THEN} ".join(part.answer for part in self.parts)

    @property
    def labels(self) -> list[str]:
        """The domain of every answer token, the end token not among them. A ``then`` belongs to the part that it ends."""
        labels = [part.domain for part in self.parts for _ in [*part.answer.split(), THEN]]
        return labels[:-1]


def to_record(task: Task) -> dict[str, Any]:
    """The task as one line of training data: ``{"domain": .., "messages": [user, assistant]}``."""
    messages = [{"role": "user", "content": task.prompt}, {"role": "assistant", "content": task.answer}]
    return {"domain": task.domain, "messages": messages}
