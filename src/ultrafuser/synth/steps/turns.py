"""Further turns, in which the model also plays the user: the paper's step 6.

A turn that is no good ends the conversation before it; what was there is kept, and the reason with it.
"""

from __future__ import annotations

from functools import partial

from ultrafuser.endpoints.request import record_schema
from ultrafuser.synth.ask import ask, conversation, question, read_text
from ultrafuser.synth.context import Context
from ultrafuser.synth.quality.rules import check_instruction
from ultrafuser.synth.record import Item
from ultrafuser.synth.steps.responses import as_it_is

SCHEMA = record_schema(message="string")


def go_on(context: Context, items: list[Item]) -> None:
    """Add the recipe's number of turns to each conversation."""
    for item in items:
        item.provenance["turns"] = []
    for turn in range(context.recipe.turns.number):
        going = [item for item in items if not item.provenance.get("ended") and len(item.further) == 2 * turn]
        _answer(context, turn, _speak(context, turn, going))


def _speak(context: Context, turn: int, items: list[Item]) -> list[Item]:
    """Put the user's next message behind each conversation; returns those that go on."""
    lineage = context.lineage()
    questions = [
        question(context, "turns", "user_turn", item.domain, (item.id, turn), schema=SCHEMA, turns=item.turns, **lineage(item))
        for item in items
    ]
    for item, reply in zip(items, ask(context, questions, partial(read_text, schema=SCHEMA, name="message")), strict=True):
        item.provenance["turns"].append(reply.provenance)
        problem = reply.problem or _message_problem(context, item, reply.content or "")
        if problem:
            item.provenance["ended"] = problem
        else:
            item.further.append({"role": "user", "content": reply.content or ""})
    return [item for item in items if "ended" not in item.provenance]


def _answer(context: Context, turn: int, items: list[Item]) -> None:
    questions = [conversation(context, "responses", item.domain, item.turns, (item.id, turn)) for item in items]
    for item, reply in zip(items, ask(context, questions, as_it_is), strict=True):
        item.provenance["turns"].append(reply.provenance)
        text, message = reply.answer.text.strip(), item.further[-1]["content"]
        if problem := context.response_problem(item.domain, message, text, reply.answer.finish_reason):
            item.further.pop()
            item.provenance["ended"] = problem
        else:
            item.further.append({"role": "assistant", "content": text})


def _message_problem(context: Context, item: Item, message: str) -> str | None:
    """In a conversation messages may be short, and "the code above" is there."""
    rules = context.recipe.domains[item.domain].rules
    names = tuple(name for name in rules.names if name != "unseen_material")
    rules = rules.model_copy(update={"names": names, "shortest_instruction": 1})
    return check_instruction(rules, message) or context.overlap(message)
