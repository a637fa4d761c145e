"""Instructions for every place of every sub-topic's quota: the paper's steps 3 (seeds) and 3b (related ones).

A round asks for all places that no item holds, several at once; a request lists for each place the traits that its instruction is
to have. Requests of one round know nothing of each other, so of a large quota a round takes only a part, which doubles; places
for related instructions wait until there are seeds to show. What is read is checked at once, in the order of the places, so that
a duplicate is found before anything is paid for its answer; the next round fills its place anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from ultrafuser.synth.ask import Question, Reply, ask, list_schema, question, read_list, text_of
from ultrafuser.synth.context import Context
from ultrafuser.synth.plan import mixture, number, pick, shares, spread
from ultrafuser.synth.record import Item, Kind, Topic
from ultrafuser.synth.steps.flow import advance

SCHEMA = list_schema("instructions", line="integer", reasoning="string", instruction="string")
TEMPLATES: dict[Kind, str] = {"seed": "instructions", "strong": "related_strong", "weak": "related_weak"}
FIRST_REQUESTS = 2  # for seeds of a sub-topic in the first round, then twice as many each; for related ones, per seed there is
LONGEST_SHOWN = 300  # characters of an instruction that a request shows as already there


@dataclass
class Quota:
    """A sub-topic and how many instructions it is to have."""

    topic: Topic
    meta_topic: str
    size: int
    taken: set[int]

    @property
    def missing(self) -> list[int]:
        return [slot for slot in range(self.size) if slot not in self.taken]


@dataclass
class Wish:
    """One request's part of a quota."""

    quota: Quota
    kind: Kind
    slots: list[int]
    question: Question


def fill(context: Context) -> None:
    """Ask until every place is held by an item, or its sub-topic has been asked ``max_rounds`` times."""
    _drop_surplus(context)
    while wishes := list(_wishes(context)):
        questions = [wish.question for wish in wishes]
        replies = ask(context, questions, partial(read_list, name="instructions"))
        written = context.state.written()
        with context.state.transaction():
            for wish, reply in zip(wishes, replies, strict=True):
                items = list(_items(context, wish, reply, written.get(wish.quota.topic.id, 0)))
                written[wish.quota.topic.id] = written.get(wish.quota.topic.id, 0) + len(items)
                context.state.save_items(items)
            asked = {wish.quota.topic.id: wish.quota.topic for wish in wishes}
            for topic in asked.values():
                topic.rounds += 1
            context.state.save_topics(asked.values())


def quotas(context: Context) -> Iterator[Quota]:
    """Every sub-topic's quota, even within 1 over the sub-topics of its domain."""
    taken = context.state.taken()
    metas = {topic.id: topic.name for topic in context.state.topics("meta_topic")}
    for domain, counts in context.recipe.domains.items():
        topics = list(context.state.topics("sub_topic", below=domain))
        for topic, size in zip(topics, shares(counts.instructions, len(topics)) if topics else [], strict=True):
            yield Quota(topic, metas[topic.parent], size, taken.get(topic.id, set()))


def _drop_surplus(context: Context) -> None:
    """Drop what is in no quota, since counts were lowered or topics have come since."""
    with context.state.transaction():
        for quota in quotas(context):
            if any(slot >= quota.size for slot in quota.taken):
                items = [item for item in context.state.items(below=quota.topic.id) if item.slot >= quota.size]
                for item in items:
                    item.drop("surplus: more than the sub-topic's quota")
                context.state.save_items(items)


def _wishes(context: Context) -> Iterator[Wish]:
    """What is asked in the next round."""
    recipe = context.recipe
    related = recipe.related
    weights: dict[Kind, float] = {"seed": 1 - related.strong - related.weak, "strong": related.strong, "weak": related.weak}
    all_quotas = list(quotas(context))
    kinds = mixture(weights, max((quota.size for quota in all_quotas), default=0))
    for quota in all_quotas:
        if not quota.missing or quota.topic.rounds >= recipe.max_rounds:
            continue
        live = [item for item in context.state.items(below=quota.topic.id) if item.status != "dropped"]
        seeds = sum(item.kind == "seed" for item in live)
        for kind in TEMPLATES:
            most = FIRST_REQUESTS * (2**quota.topic.rounds if kind == "seed" else seeds)
            slots = [slot for slot in quota.missing if kinds[slot] == kind][: most * recipe.per_request]
            for start in range(0, len(slots), recipe.per_request):
                yield _wish(context, quota, kind, slots[start : start + recipe.per_request], live)


def _wish(context: Context, quota: Quota, kind: Kind, slots: list[int], live: list[Item]) -> Wish:
    recipe, topic = context.recipe, quota.topic
    names = (topic.id, kind, topic.rounds, slots[0])
    variables: dict[str, Any] = {"meta_topic": quota.meta_topic, "topic": topic}
    variables["plan"] = [traits(context, topic, slot) for slot in slots]
    variables["have"] = [_shown(text) for text in spread([item.instruction for item in live], recipe.shown)]
    if kind != "seed":
        seeds = [item.original or item.instruction for item in live if item.kind == "seed"]
        variables["examples"] = sorted(seeds, key=lambda text: number(recipe.seed, *names, text))[: recipe.related.examples]
    asked = question(context, "instructions", TEMPLATES[kind], topic.domain, names, schema=SCHEMA, **variables)
    return Wish(quota, kind, slots, asked)


def traits(context: Context, topic: Topic, slot: int) -> dict[str, str]:
    """What the instruction in this place is to be like; the same however often it is asked for."""
    options = context.recipe.domains[topic.domain].traits
    return {name: pick(weights, context.recipe.seed, topic.id, slot, name) for name, weights in options.items()}


def _items(context: Context, wish: Wish, reply: Reply[list[Any]], written: int) -> Iterator[Item]:
    """The instructions of an answer, each pending or dropped."""
    topic = wish.quota.topic
    texts = _by_line(reply.content or [], len(wish.slots))
    for place, (line, text) in enumerate(sorted(texts.items())):
        slot = wish.slots[line]
        item = Item(
            id=f"{topic.id}/{written + place:04d}",
            domain=topic.domain,
            meta_topic=wish.quota.meta_topic,
            sub_topic=topic.name,
            kind=wish.kind,
            instruction=text,
            provenance={"instructions": reply.provenance},
            slot=slot,
            traits=traits(context, topic, slot),
        )
        if problem := context.instruction_problem(item):
            item.drop(problem)
        else:
            advance(context.recipe, item)
            known = context.originals if item.step == "complicate" else context.instructions
            known.add(item.id, item.instruction)
        yield item


def _by_line(entries: list[Any], lines: int) -> dict[int, str]:
    """Which line of the plan, from 0, got which instruction. What names no line of the plan is taken in order."""
    texts: dict[int, str] = {}
    for place, entry in enumerate(entries):
        fields = entry if isinstance(entry, dict) else {"instruction": entry}
        line = fields.get("line", place + 1)
        line = line - 1 if isinstance(line, int) else place
        if 0 <= line < lines and (text := text_of(fields.get("instruction"))):
            texts.setdefault(line, text)
    return texts


def _shown(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."
