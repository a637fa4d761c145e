"""A model's grade of each conversation; what is graded below the recipe's minimum is dropped."""

from __future__ import annotations

from typing import Any

from ultrafuser.endpoints.request import ChatAnswer, record_schema
from ultrafuser.synth.ask import ask, question, read_object
from ultrafuser.synth.context import Context
from ultrafuser.synth.quality.scoring import read_score, score_problem
from ultrafuser.synth.record import Item

SCHEMA = record_schema(reasoning="string", reason="string", score="integer")  # a model thinks before it grades, or not at all


def score(context: Context, items: list[Item]) -> None:
    """Note each item's score, or drop it."""
    assert context.recipe.score
    lineage = context.lineage()

    def texts(item: Item) -> dict[str, Any]:
        return {**lineage(item), "instruction": item.instruction, "response": item.response}

    questions = [question(context, "score", "score", item.domain, (item.id,), schema=SCHEMA, **texts(item)) for item in items]
    for item, reply in zip(items, ask(context, questions, _read), strict=True):
        if reply.content is None:
            item.drop(f"no score: {reply.problem}")
            continue
        item.provenance["score"] = {**reply.provenance, "score": reply.content[0], "reason": reply.content[1]}
        if problem := score_problem(*reply.content, context.recipe.score.minimum):
            item.drop(problem)


def _read(answer: ChatAnswer) -> tuple[int, str]:
    return read_score(read_object(answer, SCHEMA))
