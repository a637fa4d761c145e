"""Carries out what was decided in `synth review`: at the start of a run, and for whatever turns up again later."""

from __future__ import annotations

from ultrafuser.synth.record import REJECTED, Decision, Item, Topic
from ultrafuser.synth.state import State


def carry_out(state: State) -> bool:
    """Apply the decisions that have not taken effect yet; call it inside a transaction. True if that leaves work to be done.

    A rejected topic goes with all that hangs below it, and what is missing then is asked for anew. An edited topic keeps its
    items; an item whose instruction was edited gets a new response unless that was edited too.
    """
    work = []
    for decision in state.decisions().values():
        if decision.subject == "topic":
            work += [_on_topic(state, topic, decision) for topic in list(state.topics(key=decision.key))]
        else:
            items = list(state.items(key=decision.key))
            work += [_on_item(state, item, decision) for item in items if item.status != "dropped"]
    return any(work)


def _on_topic(state: State, topic: Topic, decision: Decision) -> bool:
    if decision.action == "edit":
        for name in ("name", "why", "use"):
            setattr(topic, name, decision.text.get(name, getattr(topic, name)))
        state.save_topics([topic])
    if decision.action != "reject":
        return False
    topics = [topic, *state.topics(below=topic.id)]
    for lost in topics:
        lost.status, lost.reason = "dropped", REJECTED if lost is topic else f"{REJECTED}: with {topic.id}"
    items = [item for item in state.items(below=topic.id) if item.status != "dropped"]
    for item in items:
        item.drop(f"{REJECTED}: with {topic.id}")
    state.save_topics(topics)
    state.save_items(items)
    _ask_again(state, topic.parent)
    return True


def _on_item(state: State, item: Item, decision: Decision) -> bool:
    if item.provenance.get("review") == (done := {"action": decision.action, **decision.text}):
        return False
    item.provenance["review"] = done
    if decision.action == "reject":
        item.drop(REJECTED)
        _ask_again(state, item.topic)
    elif decision.action == "edit":
        _edit(item, decision.text)
    state.save_items([item])
    return item.status != "accepted"


def _edit(item: Item, text: dict[str, str]) -> None:
    changed = item.instruction != text.get("instruction", item.instruction)
    item.instruction = text.get("instruction", item.instruction)
    if "response" in text:
        item.response, item.further = text["response"], []
    elif changed and item.response is not None:
        item.response, item.further = None, []
        item.status, item.step = "pending", "responses"


def _ask_again(state: State, parent: str) -> None:
    """Rounds asked so far count no more: what they brought is gone."""
    for topic in [topic for topic in state.topics() if topic.id == parent]:
        topic.rounds = 0
        state.save_topics([topic])
