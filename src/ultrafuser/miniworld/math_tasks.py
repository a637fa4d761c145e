"""The math domain: word problems of one and two steps, comparisons, sequences and equations, each with its working.

The answer is the number after ``####``, as in GSM8K.
"""

from __future__ import annotations

from random import Random

from ultrafuser.miniworld.task import Part
from ultrafuser.miniworld.words import BOXES, NAMES, THINGS

MAX_NUMBER = 40


def _part(family: str, request: str, working: str, value: int) -> Part:
    return Part("math", family, request, f"{working} #### {value}", {"value": value})


def _digit(rng: Random) -> int:
    return rng.randrange(2, 10)


def change(rng: Random) -> Part:
    who, things = rng.choice(NAMES), rng.choice(THINGS)
    first, second = _digit(rng), _digit(rng)
    if rng.random() < 0.5:
        return _part("change", f"{who} has {first} {things} and gets {second} more how many now",
                     f"{first} + {second} = {first + second}", first + second)  # fmt: skip
    total = first + second
    return _part("change", f"{who} has {total} {things} and loses {second} how many now",
                 f"{total} - {second} = {first}", first)  # fmt: skip


def boxes(rng: Random) -> Part:
    who, things, box = rng.choice(NAMES), rng.choice(THINGS), rng.choice(BOXES)
    count, each, lost = rng.randrange(2, 6), rng.randrange(3, 8), rng.choice((1, 2))
    total = count * each
    return _part("boxes", f"{who} has {count} {box} of {each} {things} and loses {lost} how many now",
                 f"{count} * {each} = {total} ; {total} - {lost} = {total - lost}", total - lost)  # fmt: skip


def compare(rng: Random) -> Part:
    (one, left), (other, right) = _sum_or_difference(rng), _sum_or_difference(rng)
    return _part("compare", f"which is more {one} or {other}", f"{one} = {left} ; {other} = {right}", max(left, right))


def _sum_or_difference(rng: Random) -> tuple[str, int]:
    """Something to work out, and what it is."""
    a, b = _digit(rng), _digit(rng)
    return (f"{a} + {b}", a + b) if rng.random() < 0.5 else (f"{a + b} - {b}", a)


def sequence(rng: Random) -> Part:
    who, things, start, step = rng.choice(NAMES), rng.choice(THINGS), _digit(rng), rng.randrange(2, 6)
    terms = [start + step * i for i in range(3)]
    return _part("sequence", f"{who} counts {' '.join(map(str, terms))} {things} what is next",
                 f"{terms[1]} - {start} = {step} ; {terms[-1]} + {step} = {terms[-1] + step}", terms[-1] + step)  # fmt: skip


def equation(rng: Random) -> Part:
    small, added, letter = _digit(rng), _digit(rng), rng.choice("abcdxyz")
    big = small + added
    if rng.random() < 0.5:
        return _part("equation", f"solve {letter} + {added} = {big}", f"{big} - {added} = {small}", small)
    return _part("equation", f"solve {letter} - {added} = {small}", f"{small} + {added} = {big}", big)


FAMILIES = (change, boxes, compare, sequence, equation)
SHORT = (equation, change)
