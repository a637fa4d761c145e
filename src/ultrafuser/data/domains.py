"""Tells which domains were hardly meant so.

Every domain gets the same share of every batch, however few examples it has (paper, section 3). So a slip in the domain of one
row may decide a quarter of the training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median

from ultrafuser.errors import did_you_mean, plural

FAR = 10  # times: how many fewer examples than other domains, and how many passes over them, are suspicious together


def doubtful_domains(counts: Mapping[str, int], reads: int, *, chosen: bool = False) -> Iterator[str]:
    """Yield a line about each domain whose name looks mistyped, or whose few examples are read far more often than others.

    Args:
        counts: examples by domain.
        reads: how many examples of each domain the whole training reads.
        chosen: the names were given, not found in the data, so they are as they should be.
    """
    for name, count in counts.items():
        others = {other: size for other, size in counts.items() if other != name}
        usual = median(others.values()) if others else 0
        near = did_you_mean(name, [] if chosen else [other for other, size in others.items() if size > 2 * count])
        if near:
            yield f"domain '{name}' ({plural(count, 'example')}) is one of {len(counts)} with equal shares of every batch{near}"
        elif count * FAR <= min(usual, reads):
            yield (
                f"domain '{name}' has only {plural(count, 'example')}: training reads each {reads / count:,.0f} times, those of "
                f"the other domains {reads / usual:,.1f} times; add some or leave the domain out"
            )
