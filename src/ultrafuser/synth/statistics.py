"""The figures about the data that the paper's table 15 has, and those that say what was dropped; for the card and the report.

Lengths are in words unless a tokenizer is given: the paper counts tokens, but does not say of which tokenizer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ultrafuser import hub
from ultrafuser.errors import UserError
from ultrafuser.io import user_path
from ultrafuser.synth.export import origins
from ultrafuser.synth.quality.language import language_of
from ultrafuser.synth.quality.rules import reason_title
from ultrafuser.synth.record import Item, Topic

LANGUAGE_SAMPLE = 20  # every so-manieth conversation is looked at


@dataclass(frozen=True)
class Measure:
    """How long texts are counted to be: ``unit`` is "words", or "tokens of NAME"."""

    unit: str
    count: Callable[[str], int]


WORDS = Measure("words", lambda text: len(text.split()))


def usd(cost: float) -> str:
    """A cost for a table; where nothing was charged, mostly since the recipe gives no prices, a dash."""
    return f"{cost:,.2f}" if cost else "–"


def tokens_of(tokenizer: str) -> Measure:
    """Tokens of a tokenizer: a ``tokenizer.json``, a directory with one, or a hub id. Raises `UserError` if there is none."""
    from tokenizers import Tokenizer

    path = user_path(tokenizer)
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        if file.is_file():
            loaded = Tokenizer.from_file(str(file))
        else:
            repository, revision = hub.split_revision(tokenizer)
            loaded = Tokenizer.from_pretrained(repository, revision or "main")
    except Exception as error:  # the library raises bare exceptions
        raise UserError(f"{tokenizer}: no tokenizer could be loaded ({hub.reason(error)})") from None
    return Measure(f"tokens of {tokenizer}", lambda text: len(loaded.encode(text, add_special_tokens=False).ids))


@dataclass
class DomainStatistics:
    """Sums over the accepted conversations of a domain, and what was dropped from it."""

    conversations: int = 0
    meta_topics: set[str] = field(default_factory=set)
    sub_topics: set[str] = field(default_factory=set)
    instruction: int = 0  # lengths
    response: int = 0
    whole: int = 0
    turns: int = 0  # questions with their answers
    complicated: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    drops: Counter[str] = field(default_factory=Counter)

    def mean(self, sum_of: str) -> float:
        """The mean of one of the sums over the conversations; 0 if there are none."""
        return float(getattr(self, sum_of)) / self.conversations if self.conversations else 0.0


@dataclass
class Statistics:
    """Filled by `add`, one item after another."""

    measure: Measure = WORDS
    domains: dict[str, DomainStatistics] = field(default_factory=dict)
    models: dict[str, set[str]] = field(default_factory=dict)  # by step, as the endpoints report them
    languages: Counter[str] = field(default_factory=Counter)  # of a sample of the conversations
    _seen: int = 0

    @classmethod
    def of(cls, domains: Iterable[str], measure: Measure = WORDS) -> Statistics:
        """Empty ones, with the domains in this order."""
        return cls(measure, {name: DomainStatistics() for name in domains})

    def add(self, item: Item) -> None:
        """Count an item; one that still waits counts for nothing."""
        own = self.domains.setdefault(item.domain, DomainStatistics())
        if item.status == "dropped":
            own.drops[reason_title(item.reason)] += 1
        elif item.status == "accepted":
            self._add_accepted(own, item)

    def add_topic(self, topic: Topic) -> None:
        """Note which model named it."""
        for step, origin in topic.provenance.items():
            self.models.setdefault(step, set()).add(origin["model"])

    def _add_accepted(self, own: DomainStatistics, item: Item) -> None:
        turns = item.turns
        lengths = [self.measure.count(turn["content"]) for turn in turns]
        own.conversations += 1
        own.meta_topics.add(item.topic.rpartition("/")[0])
        own.sub_topics.add(item.topic)
        own.instruction += lengths[0]
        own.response += sum(length for length, turn in zip(lengths, turns, strict=True) if turn["role"] == "assistant")
        own.whole += sum(lengths)
        own.turns += len(turns) // 2
        own.complicated += item.original is not None
        own.kinds[item.kind] += 1
        for step, origin in origins(item):
            self.models.setdefault(step, set()).add(origin["model"])
        self._seen += 1
        if self._seen % LANGUAGE_SAMPLE == 1:
            self.languages[language_of(" ".join(turn["content"] for turn in turns)) or ""] += 1

    @property
    def total(self) -> int:
        return sum(domain.conversations for domain in self.domains.values())

    @property
    def drops(self) -> Counter[str]:
        """Of all domains."""
        return sum((domain.drops for domain in self.domains.values()), Counter())
