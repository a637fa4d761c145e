"""The arithmetic of balance: who gets how many, and what each place of a quota is for.

Everything here depends on the recipe and on places only, never on what was answered, so a place that is filled anew is filled
with the same: the same kind, the same traits, complicated or not.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TypeVar

Option = TypeVar("Option")
GOLDEN = (math.sqrt(5) - 1) / 2


def shares(total: int, receivers: int) -> list[int]:
    """``total`` over so many receivers, even within 1; the first get the rest."""
    each, rest = divmod(total, receivers)
    return [each + (place < rest) for place in range(receivers)]


def chosen(share: float, slot: int, position: int) -> bool:
    """Is this slot one of the ``share`` that is sampled? Of any run of slots floor or ceiling of its share is.

    ``position`` counts the receivers (sub-topics); it moves the sample so that short quotas are not all rounded the same way.
    """
    offset = (position + 1) * GOLDEN % 1.0
    return math.floor((slot + 1) * share + offset) > math.floor(slot * share + offset)


def mixture(weights: Mapping[Option, float], places: int) -> list[Option]:
    """Options for so many places, each at every length of the list near its share; the first begins."""
    total, given = sum(weights.values()), dict.fromkeys(weights, 0)
    options = list(weights)[: min(places, 1)]
    while len(options) < places:
        given[options[-1]] += 1
        due = {option: weights[option] / total * (len(options) + 1) - given[option] for option in weights}
        options.append(max(due, key=due.__getitem__))
    return options


def pick(weights: Mapping[Option, float], *names: object) -> Option:
    """One option, drawn by the hash of ``names`` with probabilities in proportion to the weights."""
    point = number(*names) / 2**31 * sum(weights.values())
    reached = zip(weights, accumulate(weights.values()), strict=True)
    return next((option for option, upto in reached if point < upto), next(reversed(list(weights))))


def number(*names: object) -> int:
    """A number below 2**31 that depends on ``names`` only: a seed for an endpoint, a point to draw by."""
    return int.from_bytes(hashlib.sha256(json.dumps(names).encode()).digest()[:4], "big") >> 1


def spread(texts: Sequence[str], most: int) -> list[str]:
    """At most so many of ``texts``, taken evenly from the first to the last."""
    if len(texts) <= most:
        return list(texts)
    return [texts[place * len(texts) // most] for place in range(most)]
