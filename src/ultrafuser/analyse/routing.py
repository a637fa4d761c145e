"""What the gate does, in numbers: mean weights (the paper's table 6), entropy, and how often it picks the right specialist.

Gating accuracy is the share of answer tokens whose heaviest specialist is the one of the token's labelled domain. It is
also counted at the borders inside mixed answers, where it is hardest: on the tokens within ``reach`` of a change of domain,
one before and one after it by default. Intervals are 95%, clustered by conversation (see ``intervals.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ultrafuser.analyse.trace import TokenTrace
from ultrafuser.intervals import Interval, ratio, share

REACH = 1


@dataclass(frozen=True)
class Routing:
    """Gate statistics per domain, domains in the order of the traces.

    ``weights`` holds one mean per specialist; ``entropy`` is in nats (at most ln N). ``accuracy`` and ``border`` have only the
    domains whose tokens (near borders) carry the name of a specialist.
    """

    specialists: tuple[str, ...]
    weights: dict[str, tuple[Interval, ...]]
    entropy: dict[str, Interval]
    accuracy: dict[str, Interval]
    border: dict[str, Interval]

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values for JSON."""
        return asdict(self)


def summarise(traces: Sequence[TokenTrace], specialists: Sequence[str], *, reach: int = REACH) -> Routing:
    """Compute the statistics of ``traces``; ``specialists`` names the columns of their weights."""
    groups: dict[str, list[TokenTrace]] = {}
    for trace in traces:
        if len(trace.tokens):
            groups.setdefault(trace.domain, []).append(trace)
    near = {domain: _accuracy(group, specialists, lambda trace: near_border(trace, reach)) for domain, group in groups.items()}
    overall = {domain: _accuracy(group, specialists, everywhere) for domain, group in groups.items()}
    return Routing(
        specialists=tuple(specialists),
        weights={
            domain: tuple(_mean([trace.weights[:, j] for trace in group]) for j in range(len(specialists)))
            for domain, group in groups.items()
        },
        entropy={domain: _mean([entropy(trace.weights) for trace in group]) for domain, group in groups.items()},
        accuracy={domain: found for domain, found in overall.items() if found},
        border={domain: found for domain, found in near.items() if found},
    )


def entropy(weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """Entropy of the gate at each token in nats, (T,) from (T, N)."""
    known = weights.astype(np.float64)
    return -np.sum(known * np.log(np.where(known > 0, known, 1.0)), axis=1)


def everywhere(trace: TokenTrace) -> NDArray[np.bool_]:
    """All tokens of a trace, (T,)."""
    return np.ones(len(trace.tokens), dtype=bool)


def near_border(trace: TokenTrace, reach: int = REACH) -> NDArray[np.bool_]:
    """The tokens within ``reach`` of a change of label: the ``reach`` last ones before it and first ones after it, (T,)."""
    near = np.zeros(len(trace.tokens), dtype=bool)
    labels = trace.labels or []
    for place in range(1, len(labels)):
        if labels[place] != labels[place - 1]:
            near[max(0, place - reach) : place + reach] = True
    return near


def is_right(trace: TokenTrace, specialists: Sequence[str]) -> list[bool | None]:
    """For each token: is its heaviest specialist the labelled one? None where no specialist has the label's name."""
    heaviest = trace.weights.argmax(1)
    labels = [trace.label(place) for place in range(len(trace.tokens))]
    return [
        specialists[int(best)] == label if label in specialists else None for best, label in zip(heaviest, labels, strict=True)
    ]


def sample_means(trace: TokenTrace) -> NDArray[np.float32]:
    """Mean weight of every specialist over the answer, (N,): one column of the paper's figure 6."""
    return np.asarray(trace.weights.mean(0), dtype=np.float32)


def _mean(values: Sequence[NDArray[Any]]) -> Interval:
    return ratio([float(own.sum(dtype=np.float64)) for own in values], [len(own) for own in values])


def _accuracy(
    traces: Sequence[TokenTrace], specialists: Sequence[str], which: Callable[[TokenTrace], NDArray[np.bool_]]
) -> Interval | None:
    hits, counts = [], []
    for trace in traces:
        judged = [
            right
            for right, chosen in zip(is_right(trace, specialists), which(trace), strict=True)
            if chosen and right is not None
        ]
        hits.append(sum(judged))
        counts.append(len(judged))
    return share(hits, counts) if sum(counts) else None
