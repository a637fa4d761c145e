"""Tasks of the generated world, any number of them, deterministic in a seed.

Training and test instances are disjoint: a hash of a request says which side it is on, and a task is only made of parts that are
all on its side. (A link, the second part of a task that refers to the first answer, has no side of its own: there is one for
every first part.)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from random import Random
from typing import Literal

from ultrafuser.errors import UserError, did_you_mean
from ultrafuser.miniworld import code_tasks, math_tasks, mixed_tasks, text_tasks
from ultrafuser.miniworld.task import DOMAINS, Part, Task

Split = Literal["train", "test"]
FAMILIES = {"text": text_tasks.FAMILIES, "code": code_tasks.FAMILIES, "math": math_tasks.FAMILIES}
TEST_SHARE = 0.15
TWO_PART_SHARE = 0.15
FRESH_TRIES = 30  # how often to look for a task not yet in the list before taking one twice


def side(request: str) -> Split:
    """The side that a request is on, whatever the seed."""
    digest = hashlib.sha256(request.encode()).digest()
    return "test" if int.from_bytes(digest[:4], "big") < TEST_SHARE * 2**32 else "train"


def generate(domain: str, n: int, seed: int, split: Split) -> list[Task]:
    """``n`` tasks of ``text``, ``code``, ``math`` or ``mixed``; no task twice unless the world has run out of new ones."""
    if domain not in (*DOMAINS, "mixed"):
        raise UserError(f"domain '{domain}' is not one of text, code, math, mixed{did_you_mean(domain, (*DOMAINS, 'mixed'))}")
    rng = Random(f"{seed}/{domain}/{split}")
    tasks: dict[str, Task] = {}
    repeats: list[Task] = []
    while len(tasks) + len(repeats) < n:
        for _ in range(FRESH_TRIES):
            task = _draw(rng, domain, split)
            if task.prompt not in tasks:
                tasks[task.prompt] = task
                break
        else:
            repeats.append(task)
    return [*tasks.values(), *repeats]


def _draw(rng: Random, domain: str, split: Split) -> Task:
    if domain == "mixed":
        mixed = rng.choice(mixed_tasks.FAMILIES)
        return Task(domain, mixed.__name__, _on_side(mixed, rng, split))
    if rng.random() < TWO_PART_SHARE:
        first, second = rng.sample(mixed_tasks.SHORT[domain], 2)
        return Task(domain, "two_requests", _on_side(lambda rng: (first(rng), second(rng)), rng, split))
    family = rng.choice(FAMILIES[domain])
    return Task(domain, family.__name__, _on_side(lambda rng: (family(rng),), rng, split))


def _on_side(make: Callable[[Random], tuple[Part, ...]], rng: Random, split: Split) -> tuple[Part, ...]:
    while True:
        parts = make(rng)
        if all(side(part.request) == split or part.is_link for part in parts):
            return parts
