"""The code domain: small Python functions as word tokens, judged by calling them.

``<nl1>`` and ``<nl2>`` are a line break and one or two levels of indentation; `to_python` gives the program text.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from ultrafuser.miniworld.task import THEN, Part
from ultrafuser.miniworld.words import ANIMALS, COLOURS, FUNCTION_NAMES, OPPOSITE_OF

NUMBERS = (-3, 0, 1, 4, 7, 8, 15, 40)
LISTS: tuple[list[int], ...] = ([], [3], [9, 1, 12, 5], [2, 4, 6, 8, 20, 0])
COMPARISONS: dict[str, tuple[str, Callable[[int, int], bool]]] = {"more": (">", operator.gt), "less": ("<", operator.lt)}
OPERATIONS: dict[str, tuple[str, Callable[[int, int], int]]] = {
    "plus": ("+", operator.add),
    "minus": ("-", operator.sub),
    "times": ("*", operator.mul),
}


def to_python(answer: str) -> str:
    """The program text of a code answer; anything that is not one becomes text that does not compile."""
    text = re.sub(r" ?<nl(\d)> ?", lambda match: "\n" + "    " * int(match[1]), answer)
    return re.sub(r'" (\S+) "', r'"\1"', text) + "\n"


def _part(family: str, what: str, signature: str, body: str, cases: list[tuple[list[Any], Any]], name: str) -> Part:
    check = {"function": name, "arguments": [case[0] for case in cases], "returns": [case[1] for case in cases]}
    return Part("code", family, f"write function {name} that {what}", f"def {name} {signature} : {body}", check)


def _number(rng: Random) -> int:
    return rng.randrange(2, 10)


def formula(rng: Random) -> Part:
    first, second = rng.choice(sorted(OPERATIONS)), rng.choice(sorted(OPERATIONS))
    (sign1, do1), (sign2, do2) = OPERATIONS[first], OPERATIONS[second]
    a, b = _number(rng), _number(rng)
    return _part("formula", f"returns x {first} {a} and all that {second} {b}", "( x )", f"return ( x {sign1} {a} ) {sign2} {b}",
                 [([x], do2(do1(x, a), b)) for x in NUMBERS], rng.choice(FUNCTION_NAMES))  # fmt: skip


def choice(rng: Random) -> Part:
    word = rng.choice(sorted(COMPARISONS))
    sign, holds = COMPARISONS[word]
    limit, a, b = _number(rng), _number(rng), _number(rng)
    cases = [([x], a if holds(x, limit) else x + b) for x in (*NUMBERS, limit, limit - 1, limit + 1)]
    body = f"<nl1> if x {sign} {limit} : <nl2> return {a} <nl1> return x + {b}"
    return _part("choice", f"returns {a} if x is {word} than {limit} or else x plus {b}", "( x )", body, cases,
                 rng.choice(FUNCTION_NAMES))  # fmt: skip


def loop(rng: Random) -> Part:
    word = rng.choice(sorted(OPERATIONS))
    sign, do = OPERATIONS[word]
    start, a = _number(rng), _number(rng)
    return _part("loop", f"adds to {start} each number in v {word} {a}", "( v )",
                 f"<nl1> s = {start} <nl1> for x in v : <nl2> s += x {sign} {a} <nl1> return s",
                 [([v], start + sum(do(x, a) for x in v)) for v in LISTS], rng.choice(FUNCTION_NAMES))  # fmt: skip


def keep(rng: Random) -> Part:
    word = rng.choice(sorted(COMPARISONS))
    sign, holds = COMPARISONS[word]
    limit, a = _number(rng), _number(rng)
    lists = [*LISTS, [limit - 1, limit, limit + 1]]
    return _part("keep", f"keeps the numbers in v {word} than {limit} and gives each times {a}", "( v )",
                 f"return [ x * {a} for x in v if x {sign} {limit} ]",
                 [([v], [x * a for x in v if holds(x, limit)]) for v in lists], rng.choice(FUNCTION_NAMES))  # fmt: skip


def greet(rng: Random) -> Part:
    word = rng.choice([*ANIMALS, *COLOURS])
    return _part("greet", f"puts {word} after x", "( x )", f'return x + " {word} "',
                 [([x], x + word) for x in ("p", "", "who")], rng.choice(FUNCTION_NAMES))  # fmt: skip


def plain(rng: Random) -> Part:
    word = rng.choice(sorted(OPERATIONS))
    sign, do = OPERATIONS[word]
    a = rng.randrange(2, 20)
    return _part("plain", f"returns x {word} {a}", "( x )", f"return x {sign} {a}", [([x], do(x, a)) for x in NUMBERS],
                 rng.choice(FUNCTION_NAMES))  # fmt: skip


def hand_over(rng: Random) -> Part:
    """Say some words, then a function that returns the last: the skill that puts another domain's answer into a program."""
    word = rng.choice([str(rng.randrange(1, 25)), rng.choice([*ANIMALS, *COLOURS, *sorted(OPPOSITE_OF)])])
    others = [rng.choice([str(rng.randrange(1, 25)), rng.choice(ANIMALS), "+", "=", "####"]) for _ in range(rng.randrange(1, 3))]
    said = " ".join([*others, word])
    link = hand_over_link(rng, said)
    return Part("code", "hand_over", f"say {said} {THEN} {link.request}", f"{said} {THEN} {link.answer}", link.check)


def hand_over_link(rng: Random, before: str) -> Part:
    """The second part of a task whose first answer is ``before``."""
    word = before.split()[-1]
    value, shown = (int(word), word) if word.isdigit() else (word, f'" {word} "')
    part = _part("hand_over", "returns the answer", "( )", f"return {shown}", [([], value)], rng.choice(FUNCTION_NAMES))
    return replace(part, is_link=True)


FAMILIES = (formula, choice, loop, keep, greet, plain, hand_over)
SHORT = (plain, greet)
