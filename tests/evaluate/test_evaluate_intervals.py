"""Intervals against brute force: exact coverage of Wilson's, a jackknife for the ratio estimator."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ultrafuser.intervals import Interval, normal, ratio, ratio_error, share, wilson


def test_wilson_solves_its_equation():
    """Both ends are where the score test just accepts, |p - p0| = z sqrt(p0(1-p0)/n): catches a slip in the closed form."""
    for successes, n in [(3, 10), (50, 300), (299, 300)]:
        interval = wilson(successes, n)
        for end in (interval.low, interval.high):
            assert abs(successes / n - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / n), rel=1e-5)


def test_wilson_at_the_ends():
    """All right or all wrong still has a width and stays in [0, 1]: catches the collapsed normal interval."""
    assert wilson(0, 300).low == 0.0 and 0.01 < wilson(0, 300).high < 0.02
    assert wilson(300, 300).high == 1.0 and 0.98 < wilson(300, 300).low < 0.99


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 3), (4, 3)])
def test_wilson_refuses(successes, n):
    """Impossible counts must not turn into plausible numbers."""
    with pytest.raises(ValueError, match="successes"):
        wilson(successes, n)


def test_ratio_error_is_that_of_a_jackknife():
    """Leaving out one conversation at a time must give nearly the same error: catches treating tokens as independent."""
    rng = np.random.default_rng(0)
    counts = rng.integers(5, 40, size=200).astype(float)
    sums = counts * rng.normal(2.0, 0.5, size=200)  # one mean loss per conversation
    mean, error = ratio_error(sums, counts)
    left_out = np.array([(sums.sum() - sums[i]) / (counts.sum() - counts[i]) for i in range(200)])
    jackknife = math.sqrt(199 / 200 * ((left_out - left_out.mean()) ** 2).sum())
    assert mean == pytest.approx(sums.sum() / counts.sum())
    assert error == pytest.approx(jackknife, rel=0.02)
    assert ratio(sums, counts) == normal(mean, error, int(counts.sum()))


def test_one_conversation_has_no_error():
    """One cluster says nothing about the spread between clusters: an interval of width 0 would be a lie."""
    assert math.isnan(ratio_error([3.0], [2])[1])
    assert math.isnan(ratio([3.0], [2]).low)
    with pytest.raises(ValueError, match="at least one token"):
        ratio_error([], [])


def test_share_counts_conversations():
    """Tokens that agree within their conversation count as one outcome, independent ones count in full."""
    agreeing = share([10] * 50 + [0] * 50, [10] * 100)
    assert agreeing.high - agreeing.low == pytest.approx(wilson(50, 100).high - wilson(50, 100).low, rel=0.02)
    hits = np.random.default_rng(1).binomial(10, 0.8, size=400)
    independent = share(hits.tolist(), [10] * 400)
    plain = wilson(int(hits.sum()), 4000)
    assert independent.high - independent.low == pytest.approx(plain.high - plain.low, rel=0.1)
    assert share([5, 5], [5, 5]) == Interval(1.0, wilson(2, 2).low, 1.0, 10)
