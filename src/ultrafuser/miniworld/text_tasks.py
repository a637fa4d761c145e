"""The text domain: opposites, capitals, past tense, questions, sorting, and saying an answer in a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

from ultrafuser.miniworld.task import THEN, Part
from ultrafuser.miniworld.words import ANIMALS, CAPITALS, COLOURS, NAMES, OPPOSITE_OF, THINGS, VERBS


def _part(family: str, request: str, answer: str) -> Part:
    return Part("text", family, request, answer, {})


def opposites(rng: Random) -> Part:
    words, who = rng.sample(sorted(OPPOSITE_OF), 2), rng.choice(NAMES)
    return _pairs("opposites", f"give {who} the opposites of {' '.join(words)}", words, OPPOSITE_OF)


def capitals(rng: Random) -> Part:
    lands, who = rng.sample(sorted(CAPITALS), 2), rng.choice(NAMES)
    return _pairs("capitals", f"name {who} the capitals of {' '.join(lands)}", lands, CAPITALS)


def _pairs(family: str, request: str, words: list[str], table: Mapping[str, str]) -> Part:
    """Every word with what the table says of it: each word repeated, so that a tiny model looks up one thing at a time."""
    return _part(family, request, " and ".join(f"{word} {table[word]}" for word in words))


def past(rng: Random) -> Part:
    who, things = rng.choice(NAMES), f"the {rng.choice(COLOURS)} {rng.choice(THINGS)}"
    now, before = VERBS[rng.choice(sorted(VERBS))]
    return _part("past", f"put into the past {who} {now} {things}", f"{who} {before} {things}")


def question(rng: Random) -> Part:
    who, things = rng.choice(NAMES), f"the {rng.choice(COLOURS)} {rng.choice(THINGS)}"
    verb = rng.choice(sorted(VERBS))
    return _part("question", f"make a question of {who} {VERBS[verb][0]} {things}", f"does {who} {verb} {things} ?")


def in_order(rng: Random) -> Part:
    who, words = rng.choice(NAMES), rng.sample(ANIMALS, 2)
    return _part("in_order", f"sort by letters for {who} {' '.join(words)}", f"{who} {' '.join(sorted(words))}")


def tell(rng: Random) -> Part:
    """Say some numbers, then a sentence with the last of them: the skill that states the answer of a calculation."""
    said = " ".join(str(rng.randrange(1, 25)) for _ in range(rng.randrange(2, 4)))
    link = tell_link(rng, said)
    return _part("tell", f"say {said} {THEN} {link.request}", f"{said} {THEN} {link.answer}")


def tell_link(rng: Random, before: str) -> Part:
    """The second part of a task whose first answer is ``before``."""
    who, things, verb = rng.choice(NAMES), rng.choice(THINGS), VERBS[rng.choice(sorted(VERBS))][0]
    answer = f"{who} {verb} {before.split()[-1]} {things}"
    return Part("text", "tell", f"tell that {who} {verb} so many {things}", answer, {}, is_link=True)


FAMILIES = (opposites, capitals, past, question, in_order, tell)
SHORT = (opposites, capitals, past)  # those that two-part tasks are made of
