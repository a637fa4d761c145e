"""The mixed set: answers that need two domains at once, made only of skills that the single specialists have.

It is in nobody's training data. The domain of every answer token is known (`Task.labels`).
"""

from __future__ import annotations

from random import Random

from ultrafuser.miniworld import code_tasks, math_tasks, text_tasks
from ultrafuser.miniworld.task import Part

SHORT = {"text": text_tasks.SHORT, "code": code_tasks.SHORT, "math": math_tasks.SHORT}


def value_in_function(rng: Random) -> tuple[Part, ...]:
    """A function that returns the answer of a math problem."""
    problem = rng.choice(math_tasks.FAMILIES)(rng)
    return problem, code_tasks.hand_over_link(rng, problem.answer)


def word_in_function(rng: Random) -> tuple[Part, ...]:
    """A function that returns an opposite or a capital."""
    words = rng.choice((text_tasks.opposites, text_tasks.capitals))(rng)
    return words, code_tasks.hand_over_link(rng, words.answer)


def value_in_sentence(rng: Random) -> tuple[Part, ...]:
    """A sentence that states the answer of a calculation."""
    problem = rng.choice(math_tasks.FAMILIES)(rng)
    return problem, text_tasks.tell_link(rng, problem.answer)


def two_requests(rng: Random) -> tuple[Part, ...]:
    """Two requests of different domains, one after the other."""
    first, second = rng.sample(sorted(SHORT), 2)
    return rng.choice(SHORT[first])(rng), rng.choice(SHORT[second])(rng)


FAMILIES = (value_in_function, word_in_function, value_in_sentence, two_requests)
