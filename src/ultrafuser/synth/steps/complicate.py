"""Rewrites instructions to be more complex: the paper's step 4, for the share of them that `flow` sends here."""

from __future__ import annotations

from functools import partial

from ultrafuser.endpoints.request import record_schema
from ultrafuser.synth.ask import ask, question, read_text
from ultrafuser.synth.context import Context
from ultrafuser.synth.record import Item

SCHEMA = record_schema(reasoning="string", instruction="string")


def complicate(context: Context, items: list[Item]) -> None:
    """Replace each item's instruction, which becomes its ``original``; drop it where nothing usable came."""
    lineage, step = context.lineage(), "complicate"
    questions = [
        question(context, step, step, item.domain, (item.id,), schema=SCHEMA, instruction=item.instruction, **lineage(item))
        for item in items
    ]
    for item, reply in zip(items, ask(context, questions, partial(read_text, schema=SCHEMA, name="instruction")), strict=True):
        item.provenance["complicate"] = reply.provenance
        if reply.content is None:
            item.drop(f"no answer: {reply.problem}")
            continue
        item.original, item.instruction = item.instruction, reply.content
        if problem := context.instruction_problem(item):
            item.drop(problem)
        else:
            context.instructions.add(item.id, item.instruction)
