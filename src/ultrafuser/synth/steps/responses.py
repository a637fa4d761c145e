"""The response to each instruction: the paper's step 5."""

from __future__ import annotations

from ultrafuser.endpoints.request import ChatAnswer
from ultrafuser.synth.ask import ask, conversation
from ultrafuser.synth.context import Context
from ultrafuser.synth.record import Item


def respond(context: Context, items: list[Item]) -> None:
    """Write each item's response; drop it where the answer is no good."""
    questions = [conversation(context, "responses", item.domain, item.turns, (item.id,)) for item in items]
    for item, reply in zip(items, ask(context, questions, as_it_is), strict=True):
        item.provenance["responses"] = reply.provenance
        item.response = reply.answer.text.strip()
        problem = context.response_problem(item.domain, item.instruction, item.response, reply.answer.finish_reason)
        if problem:
            item.drop(problem)


def as_it_is(answer: ChatAnswer) -> ChatAnswer:
    """For `ask`: an answer that is not read as JSON, and so never asked again."""
    return answer
