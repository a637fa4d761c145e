"""95% intervals for scores, losses and gate statistics.

Three cases cover everything the project reports:

- `wilson`: a share of independent yes/no outcomes, such as the accuracy over test prompts. Wilson's score interval never
  leaves [0, 1] and has a width even at 0 of n or n of n, where the normal interval collapses to a point.
- `ratio`: a mean over tokens. Tokens of one conversation resemble each other, so the conversation is the independent unit:
  the mean is the ratio of two sums over conversations and its error that of a ratio estimator (linearised, normal interval).
- `share`: a share of tokens, both at once: Wilson's interval at the number of independent outcomes that would give the
  ratio estimator's error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z = 1.959963984540054  # the standard normal's 97.5% point


@dataclass(frozen=True)
class Interval:
    """A value with its 95% interval; ``n`` counts what it was measured on (prompts or tokens)."""

    value: float
    low: float
    high: float
    n: int


def wilson(successes: float, n: float) -> Interval:
    """Wilson's interval for ``successes`` of ``n`` independent outcomes. Raises ValueError unless 0 <= successes <= n > 0."""
    if not 0 <= successes <= n or n <= 0:
        raise ValueError(f"successes and n must hold 0 <= successes <= n and n > 0, not {successes} and {n}")
    share = successes / n
    centre = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    # Rounding must not push an end past the share itself at 0 and 1.
    return Interval(share, max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)), round(n))


def ratio_error(sums: Sequence[float], counts: Sequence[float]) -> tuple[float, float]:
    """Mean over tokens and its standard error, from each conversation's sum and number of tokens.

    ``sums`` and ``counts`` have one entry per conversation. The error is NaN for a single conversation.
    Raises ValueError when there are no tokens.
    """
    total, tokens = np.asarray(sums, dtype=float), np.asarray(counts, dtype=float)
    if tokens.sum() <= 0:
        raise ValueError("a mean needs at least one token")
    mean = float(total.sum() / tokens.sum())
    if len(tokens) < 2:
        return mean, math.nan
    spread = float(((total - mean * tokens) ** 2).sum()) * len(tokens) / (len(tokens) - 1)
    return mean, math.sqrt(spread) / float(tokens.sum())


def normal(mean: float, error: float, n: int) -> Interval:
    """The normal interval around ``mean``; with an unknown (NaN) ``error`` both ends are NaN."""
    return Interval(mean, mean - Z * error, mean + Z * error, n)


def ratio(sums: Sequence[float], counts: Sequence[float]) -> Interval:
    """Mean over tokens with its interval, conversations being the independent units (see `ratio_error`)."""
    mean, error = ratio_error(sums, counts)
    return normal(mean, error, round(sum(counts)))


def share(hits: Sequence[float], counts: Sequence[float]) -> Interval:
    """Share of tokens that are hits, conversations being the independent units.

    ``hits`` and ``counts`` have one entry per conversation. The effective number of outcomes is p(1-p)/error^2; where that is
    undefined (all or no tokens are hits, or one conversation) each conversation counts as one outcome.
    """
    value, error = ratio_error(hits, counts)
    tokens = sum(counts)
    known = error > 0 and 0 < value < 1
    effective = value * (1 - value) / error**2 if known else sum(1 for count in counts if count)
    around = wilson(value * min(effective, tokens), min(effective, tokens))
    return Interval(value, around.low, around.high, round(tokens))
