"""What the synthesis keeps of every topic, instruction and review decision (the paper's section 4).

Ids are paths and say where something hangs: the domain ``code``, its meta-topic ``code/003``, the sub-topic ``code/003/012``,
the instruction ``code/003/012/0007``. The last number counts everything ever written for the sub-topic, dropped items too, so
that an id is never used twice.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Literal

Level = Literal["domain", "meta_topic", "sub_topic"]
Kind = Literal["seed", "strong", "weak"]  # asked for as such, or as strongly or weakly related to seeds of the sub-topic
Status = Literal["pending", "accepted", "dropped"]
Action = Literal["accept", "edit", "reject"]
Turn = dict[str, str]  # {"role": "user" | "assistant", "content": ..}
REJECTED = "rejected in review"


def content_key(subject: str, domain: str, text: str) -> str:
    """Name the content of a topic or an item, so that a decision about it holds wherever it turns up again."""
    return hashlib.sha256(json.dumps([subject, domain, text]).encode()).hexdigest()[:32]


@dataclass
class Topic:
    """A domain, a meta-topic of it or a sub-topic of that."""

    id: str
    name: str
    why: str = ""  # why it matters
    use: str = ""  # an example of its use
    status: Literal["active", "dropped"] = "active"
    reason: str = ""  # of the drop
    rounds: int = 0  # how often what belongs below it has been asked for
    provenance: dict[str, Any] = field(default_factory=dict)
    key: str = ""  # of its content as it was first written

    def __post_init__(self) -> None:
        self.key = self.key or content_key("topic", self.domain, self.name)

    @property
    def domain(self) -> str:
        return self.id.partition("/")[0]

    @property
    def parent(self) -> str:
        """The id of what it belongs to; empty for a domain."""
        return self.id.rpartition("/")[0]

    @property
    def level(self) -> Level:
        levels: tuple[Level, ...] = ("domain", "meta_topic", "sub_topic")
        return levels[self.id.count("/")]


@dataclass
class Item:
    """One instruction on its way to a conversation.

    ``provenance`` has one entry per step that had a part in it: the request's key, the prompt's hash, model, endpoint, sampling.
    """

    id: str
    domain: str
    meta_topic: str  # names, not ids
    sub_topic: str
    kind: Kind
    instruction: str
    original: str | None = None  # the instruction before it was made more complex
    response: str | None = None
    further: list[Turn] = field(default_factory=list)  # the turns after the first response
    status: Status = "pending"
    reason: str = ""  # of the drop
    provenance: dict[str, Any] = field(default_factory=dict)
    slot: int = 0  # its place in the sub-topic's quota; a dropped item's place is filled anew
    step: str = "instructions"  # the step it waits for, or at which it was dropped
    traits: dict[str, str] = field(default_factory=dict)  # what was asked of it: {"language": "Python", ..}
    key: str = ""  # of its content as it was first written

    def __post_init__(self) -> None:
        self.key = self.key or content_key("item", self.domain, self.instruction)

    @property
    def topic(self) -> str:
        """The id of its sub-topic."""
        return self.id.rpartition("/")[0]

    @property
    def turns(self) -> list[Turn]:
        """The conversation as far as it goes: instruction, response, further turns."""
        first = [{"role": "user", "content": self.instruction}]
        return first if self.response is None else [*first, {"role": "assistant", "content": self.response}, *self.further]

    def drop(self, reason: str) -> None:
        """Take it out for ``reason``; it stays on record."""
        self.status, self.reason = "dropped", reason


@dataclass(frozen=True)
class Decision:
    """What a person decided about the topic or item of that ``key``."""

    key: str
    subject: Literal["topic", "item"]
    action: Action
    text: dict[str, str] = field(default_factory=dict)  # of an edit: name, why, use / instruction, response; only what is changed
    note: str = ""
