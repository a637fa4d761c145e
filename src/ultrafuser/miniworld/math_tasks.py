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


def change(rng: Random) -> Part:
    who, things = rng.choice(NAMES), rng.choice(THINGS)
    first, second = rng.randrange(2, 11), rng.randrange(2, 11)
    if rng.random() < 0.5:
        return _part("change", f"{who} has {first} {things} and gets {second} more how many now",
                     f"{first} + {second} = {first + second}", first + second)  # fmt: skip
    total = first + second
    return _part("change", f"{who} has {total} {things} and loses {second} how many now",
                 f"{total} - {second} = {first}", first)  # fmt: skip


def boxes(rng: Random) -> Part:
    who, things, box = rng.choice(NAMES), rng.choice(THINGS), rng.choice(BOXES)
    count, each, lost = rng.randrange(2, 6), rng.randrange(3, 8), rng.choice((1, 2, 3))
    total = count * each
    return _part("boxes", f"{who} has {count} {box} of {each} {things} and loses {lost} how many now",
                 f"{count} * {each} = {total} ; {total} - {lost} = {total - lost}", total - lost)  # fmt: skip


def compare(rng: Random) -> Part:
    a, b, c, d = (rng.randrange(2, 11) for _ in range(4))
    left, right = a + b, c + d
    return _part("compare", f"which is more {a} + {b} or {c} + {d}",
                 f"{a} + {b} = {left} ; {c} + {d} = {right}", max(left, right))  # fmt: skip


def sequence(rng: Random) -> Part:
    who, start, step = rng.choice(NAMES), rng.randrange(1, 13), rng.randrange(2, 6)
    terms = [start + step * i for i in range(3)]
    return _part("sequence", f"{who} counts {' '.join(map(str, terms))} what is next",
                 f"{terms[1]} - {start} = {step} ; {terms[-1]} + {step} = {terms[-1] + step}", terms[-1] + step)  # fmt: skip


def equation(rng: Random) -> Part:
    small, added, letter = rng.randrange(2, 11), rng.randrange(2, 11), rng.choice("abcdxyz")
    big = small + added
    if rng.random() < 0.5:
        return _part("equation", f"solve {letter} + {added} = {big}", f"{big} - {added} = {small}", small)
    return _part("equation", f"solve {letter} - {added} = {small}", f"{small} + {added} = {big}", big)


FAMILIES = (change, boxes, compare, sequence, equation)
SHORT = (equation, change)
