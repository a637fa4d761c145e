"""Values that go from process to process."""

from __future__ import annotations

import enum
import random
from collections import OrderedDict, namedtuple
from typing import Any

import pytest

from ultrafuser.sandbox.inside.values import decode, encode


class Liar(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


class Color(str, enum.Enum):
    RED = "red"


def some_value(rng: random.Random, depth: int) -> Any:
    leaves = [None, True, False, rng.randint(-9, 9), -(10**30), rng.random(), "é\ud800\n", b"\x00\xff", 1j, range(3), ""]
    if depth == 0 or rng.random() < 0.3:
        return rng.choice(leaves)
    items = [some_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    plain = [rng.choice(leaves) for _ in range(3)]
    return rng.choice([items, tuple(items), set(plain), frozenset(plain), dict(zip(plain, items, strict=False))])


def test_values_come_back_the_same() -> None:
    """Catches a type or value that is lost on the way."""
    rng = random.Random(0)
    for _ in range(300):
        value = some_value(rng, 4)
        assert repr(decode(encode(value))) == repr(value) or decode(encode(value)) == value


def test_subclasses_become_what_they_are_a_kind_of() -> None:
    """Catches an object whose methods or type come along."""
    pair = namedtuple("pair", "a b")
    for value, plain in ((Liar(4), 4), (Color.RED, "red"), (OrderedDict(a=1), {"a": 1}), (pair(1, 2), (1, 2)), (True, True)):
        assert decode(encode([value])) == [plain] and type(decode(encode(value))) is type(plain)


def test_other_objects_are_refused_or_referred_to() -> None:
    """Catches an object that is sent as something else."""
    with pytest.raises(TypeError, match="object"):
        encode([object()])
    assert decode(encode([print], lambda value: 7), lambda number: f"number {number}") == ["number 7"]
    assert list(decode(encode(iter("ab")))) == ["a", "b"]


def test_bytes_that_are_no_value_are_refused() -> None:
    """Catches hostile bytes that end in anything but the documented errors."""
    rng = random.Random(1)
    good = encode([some_value(rng, 3) for _ in range(5)])
    cases = [b"", b"l5:", b"S-3:abc", b"S99:abc", b"Z1:a", b"R1:I1:1", b"l1:" * 10**5, b"d1:l0:", b"I3:1_z", b"s1:l0:", b"N0:N0:"]
    for _ in range(2000):
        broken = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        cases.append(bytes(broken))
    refused = 0
    for case in cases:
        try:
            decode(case)
        except (ValueError, KeyError, TypeError, RecursionError, MemoryError, OverflowError):
            refused += 1
    assert refused > len(cases) / 2
    for case in cases[:11]:
        with pytest.raises((ValueError, KeyError, TypeError, RecursionError)):
            decode(case)
