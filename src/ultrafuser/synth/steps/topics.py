"""Meta-topics of a domain and sub-topics of a meta-topic: the paper's steps 1 and 2, which differ in the prompt only.

A round asks once for each parent that lacks topics, showing those that there are, until all have theirs or have been asked
``max_rounds`` times. Topics that say the same as another of the domain are kept as dropped, so that a later round shows them too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from ultrafuser.synth.ask import Question, Reply, ask, list_schema, question, read_list, text_of
from ultrafuser.synth.context import Context
from ultrafuser.synth.plan import shares
from ultrafuser.synth.record import Topic

Step = Literal["meta_topics", "sub_topics"]
STEPS: tuple[Step, ...] = ("meta_topics", "sub_topics")
SCHEMA = list_schema("topics", name="string", why="string", use="string")


@dataclass
class Parent:
    """What topics belong to: a domain or a meta-topic, and how many it is to have."""

    topic: Topic
    quota: int
    children: list[Topic] = field(default_factory=list)  # the dropped ones too

    @property
    def missing(self) -> int:
        return self.quota - sum(child.status == "active" for child in self.children)

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(child.name for child in self.children))


def fill(context: Context, step: Step) -> None:
    """Ask until every domain has its meta-topics, or every meta-topic its sub-topics."""
    while waiting := [p for p in parents(context, step) if p.missing > 0 and p.topic.rounds < context.recipe.max_rounds]:
        replies = ask(context, [_question(context, step, parent) for parent in waiting], partial(read_list, name="topics"))
        known = _Names(context.state.topics(active=False))
        with context.state.transaction():
            for parent, reply in zip(waiting, replies, strict=True):
                parent.topic.rounds += 1
                context.state.save_topics([parent.topic, *_children(step, parent, reply, known)])


def parents(context: Context, step: Step) -> list[Parent]:
    """Who is to have how many topics, and has which."""
    found = []
    for domain in context.state.topics("domain"):
        counts = context.recipe.domains[domain.id]
        if step == "meta_topics":
            found.append(Parent(domain, counts.meta_topics))
        elif metas := list(context.state.topics("meta_topic", below=domain.id)):
            found += [Parent(*pair) for pair in zip(metas, shares(counts.sub_topics, len(metas)), strict=True)]
    by_id = {parent.topic.id: parent for parent in found}
    for topic in context.state.topics("meta_topic" if step == "meta_topics" else "sub_topic", active=False):
        if topic.parent in by_id:
            by_id[topic.parent].children.append(topic)
    return found


def _question(context: Context, step: Step, parent: Parent) -> Question:
    topic = parent.topic
    variables: dict[str, Any] = {"count": min(parent.missing, context.recipe.topics_per_request), "have": parent.names}
    if step == "sub_topics":
        others = context.state.topics("meta_topic", below=topic.domain)
        variables |= {"topic": topic, "others": [other.name for other in others if other.id != topic.id]}
    return question(context, step, step, topic.domain, (topic.id, topic.rounds), schema=SCHEMA, **variables)


def _children(step: Step, parent: Parent, reply: Reply[list[Any]], known: _Names) -> Iterator[Topic]:
    wanted = min(parent.missing, len(reply.content or ()))
    for entry in reply.content or ():
        fields = entry if isinstance(entry, dict) else {"name": entry}
        if wanted <= 0 or not (name := text_of(fields.get("name"))):
            continue
        child = Topic(
            f"{parent.topic.id}/{len(parent.children):03d}", name, text_of(fields.get("why")), text_of(fields.get("use"))
        )
        child.provenance = {step: reply.provenance}
        if twin := known.find(child):
            child.status, child.reason = "dropped", f"duplicate: of {twin}"
        else:
            known.add(child)
            wanted -= 1
        parent.children.append(child)
        yield child


class _Names:
    """The topics of each domain by what their names say, but for case, punctuation and a plural's s."""

    def __init__(self, topics: Iterable[Topic]) -> None:
        self._ids: dict[tuple[str, str], str] = {}
        for topic in topics:
            self.add(topic)

    def find(self, topic: Topic) -> str | None:
        """The id of one of the same name."""
        return self._ids.get(self._key(topic))

    def add(self, topic: Topic) -> None:
        self._ids.setdefault(self._key(topic), topic.id)

    @staticmethod
    def _key(topic: Topic) -> tuple[str, str]:
        words = re.findall(r"\w+", topic.name.casefold().replace("&", " and "))
        return topic.domain, " ".join(word.removesuffix("s") for word in words)
