"""Who gets how many: compared with counting."""

from __future__ import annotations

from collections import Counter

import pytest

from ultrafuser.synth.plan import chosen, mixture, number, pick, shares, spread


@pytest.mark.parametrize(("total", "receivers"), [(100_000, 1100), (110_000, 80), (7, 3), (3, 3)])
def test_shares(total: int, receivers: int) -> None:
    """Catches a rest that is lost or given to one."""
    given = shares(total, receivers)
    assert sum(given) == total and len(given) == receivers and max(given) - min(given) <= 1


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("size", [1, 3, 90])
def test_sample_is_even(share: float, size: int) -> None:
    """Catches a sample that leaves sub-topics out, takes too many of one, or misses its share where quotas are short."""
    counts = [sum(chosen(share, slot, position) for slot in range(size)) for position in range(1100)]
    assert all(abs(count - share * size) < 1 for count in counts)
    assert abs(sum(counts) - share * size * len(counts)) <= 3


def test_mixture() -> None:
    """Catches kinds that are only right in the long run: a quota of any length has near its share, and a seed first."""
    weights = {"seed": 0.2, "strong": 0.4, "weak": 0.4}
    options = mixture(weights, 200)
    assert options[0] == "seed" and not mixture(weights, 0)
    for places in range(1, 200):
        counts = Counter(options[:places])
        assert options[:places] == mixture(weights, places)
        assert all(abs(counts[name] - weight * places) <= 1 for name, weight in weights.items())
    assert set(mixture({"seed": 0.5, "strong": 0.5, "weak": 0.0}, 50)) == {"seed", "strong"}


def test_draws_follow_the_weights_and_the_names_only() -> None:
    """Catches a draw that ignores weights, changes between calls, or is the same for all places."""
    weights = {"Python": 3.0, "Rust": 1.0}
    drawn = [pick(weights, 0, "code", place) for place in range(4000)]
    assert drawn == [pick(weights, 0, "code", place) for place in range(4000)]
    assert abs(Counter(drawn)["Python"] / 4000 - 0.75) < 0.03
    numbers = [number("seed", place) for place in range(1000)]
    assert len(set(numbers)) == 1000 and all(0 <= value < 2**31 for value in numbers)


def test_spread() -> None:
    """Catches a selection that is not even or has more than asked for."""
    assert spread(list("abc"), 5) == list("abc")
    assert spread(list("abcdefgh"), 4) == list("aceg")
    assert spread(list("abc"), 0) == []
