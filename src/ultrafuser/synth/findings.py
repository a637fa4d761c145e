"""What the report shows of a synthesis, gathered in one pass over its items, whatever their number."""

from __future__ import annotations

import hashlib
import heapq
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ultrafuser.synth.quality.rules import reason_title
from ultrafuser.synth.record import Item, Topic
from ultrafuser.synth.state import State
from ultrafuser.synth.statistics import WORDS, Measure, Statistics

SHOWN = 3  # dropped items shown for each reason


@dataclass
class Branch:
    """A topic in the tree, with the numbers of everything below it."""

    topic: Topic
    accepted: int = 0
    pending: int = 0
    dropped: int = 0
    example: str = ""  # an instruction
    branches: list[Branch] = field(default_factory=list)

    @property
    def fewest(self) -> int:
        """The fewest accepted conversations of a topic below it."""
        return min((branch.accepted for branch in self.branches), default=self.accepted)

    @property
    def most(self) -> int:
        return max((branch.accepted for branch in self.branches), default=self.accepted)


@dataclass
class Findings:
    """Everything but the map. ``sample`` holds the conversations that the map shows, in order."""

    statistics: Statistics
    tree: list[Branch] = field(default_factory=list)
    lengths: dict[str, dict[str, array[int]]] = field(default_factory=dict)  # "instructions" or "responses" -> domain -> lengths
    drops: dict[str, list[Item]] = field(default_factory=dict)  # some items of every reason
    pending: Counter[str] = field(default_factory=Counter)  # by the step that they wait for
    sample: list[Item] = field(default_factory=list)


def gather(state: State, *, sample: int, measure: Measure = WORDS) -> Findings:
    """Read everything once; at most ``sample`` accepted items are kept for the map, chosen by the hash of their ids."""
    domains = [topic.id for topic in state.topics("domain")]
    findings = Findings(Statistics.of(domains, measure))
    findings.lengths = {what: {name: array("i") for name in domains} for what in ("instructions", "responses")}
    leaves: dict[str, Branch] = {topic.id: Branch(topic) for topic in state.topics(active=False)}
    kept = _Sample(sample)
    for branch in leaves.values():
        findings.statistics.add_topic(branch.topic)
    for item in state.items():
        findings.statistics.add(item)
        _count(leaves[item.topic], item)
        if item.status == "dropped":
            examples = findings.drops.setdefault(reason_title(item.reason), [])
            examples += [item] if len(examples) < SHOWN else []
        elif item.status == "pending":
            findings.pending[item.step] += 1
        else:
            findings.lengths["instructions"][item.domain].append(measure.count(item.instruction))
            findings.lengths["responses"][item.domain].append(measure.count(item.response or ""))
            kept.offer(item)
    findings.sample = kept.items()
    findings.tree = _grow(leaves)
    return findings


class _Sample:
    """As many items as wanted, those with the lowest hashes: every item has the same chance, and it is the same in every run."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._heap: list[tuple[int, str, Item]] = []  # the highest hash first

    def offer(self, item: Item) -> None:
        entry = (-int.from_bytes(hashlib.blake2b(item.id.encode(), digest_size=8).digest(), "big"), item.id, item)
        if len(self._heap) < self.size:
            heapq.heappush(self._heap, entry)
        elif self.size and entry > self._heap[0]:
            heapq.heapreplace(self._heap, entry)

    def items(self) -> list[Item]:
        return sorted((item for _, _, item in self._heap), key=lambda item: item.id)


def _count(branch: Branch, item: Item) -> None:
    setattr(branch, item.status, getattr(branch, item.status) + 1)
    if not branch.example and item.status == "accepted":
        branch.example = item.instruction


def _grow(branches: dict[str, Branch]) -> list[Branch]:
    """Hang every branch below its parent and add up the numbers; returns the domains. What was dropped hangs there too."""
    roots = [branch for branch in branches.values() if not branch.topic.parent]
    for branch in sorted(branches.values(), key=lambda branch: (-branch.topic.id.count("/"), branch.topic.id)):
        if parent := branches.get(branch.topic.parent):
            parent.branches.append(branch)
            for name in ("accepted", "pending", "dropped"):
                setattr(parent, name, getattr(parent, name) + getattr(branch, name))
    return roots


@dataclass(frozen=True)
class Bar:
    """Of a histogram: lengths from ``low`` up to but not with ``high``; ``share`` of the domain's texts, and per domain."""

    low: int
    high: int
    shares: dict[str, float]


def histogram(lengths: dict[str, array[int]], bars: int = 24) -> list[Bar]:
    """Shares of each domain's lengths in bars of equal width, from 0 to the 99th percentile; the last holds what is longer."""
    everything = sorted(length for values in lengths.values() for length in values)
    if not everything:
        return []
    width = max(1, -(-everything[int(0.99 * (len(everything) - 1))] // bars))
    used = min(bars, everything[-1] // width + 1)
    counts = {name: Counter(min(length // width, used - 1) for length in values) for name, values in lengths.items() if values}
    return [Bar(n * width, (n + 1) * width, dict(_shares(counts, n))) for n in range(used)]


def _shares(counts: dict[str, Counter[int]], bar: int) -> Iterator[tuple[str, float]]:
    for name, own in counts.items():
        yield name, own[bar] / own.total()


def median(lengths: Iterable[int]) -> int:
    """The middle one; 0 if there are none."""
    ordered = sorted(lengths)
    return ordered[len(ordered) // 2] if ordered else 0
