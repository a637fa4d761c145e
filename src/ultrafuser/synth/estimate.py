"""What a recipe will ask for, in requests, tokens, US dollars and time, before anything is asked (``--dry-run``).

Requests follow from the counts, with an allowance for what is dropped and written anew. Tokens and seconds per request are the
averages of the store where a step has answers there, else those of the rendered prompts and of answers of usual length. What
a model without prices costs is not known, and not counted as nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import ceil

from ultrafuser.endpoints.models import Model
from ultrafuser.endpoints.store import AnswerStore
from ultrafuser.synth.plan import mixture, shares
from ultrafuser.synth.prompts import VARIABLES, Prompts
from ultrafuser.synth.recipe import Domain, SynthRecipe

DROPPED = 0.1  # of instructions are assumed to be dropped
# Of usual length, by what we have seen and guess.
TOKENS = {"topic": 60, "reasoning": 50, "instruction": 90, "rewritten": 130, "response": 420, "message": 40, "score": 200}
CHARACTERS_PER_TOKEN = 4
TOKENS_PER_SECOND = 40  # of one answer, after a second of waiting for it to begin
ENOUGH = 20  # answers in the store for their average to count


@dataclass(frozen=True)
class Usage:
    """Per request: tokens of prompt and answer, seconds."""

    prompt: float
    answer: float
    seconds: float


@dataclass(frozen=True)
class Row:
    """One step of the estimate. ``requests`` in all, of which ``answered`` are; tokens, cost and time are those of the rest.

    ``cost`` is in USD; None where no prices are given. Of all steps together it is that of the steps where there are.
    """

    step: str
    requests: int
    answered: int = 0
    prompt_tokens: float = 0.0
    answer_tokens: float = 0.0
    cost: float | None = 0.0
    seconds: float = 0.0


def estimate(recipe: SynthRecipe, store: AnswerStore | None = None, *, done: bool = False) -> list[Row]:
    """A row for every step that asks, and one for all together. ``store`` is that of the recipe, if there is one.

    ``done`` says that nothing is left to ask, however many requests it took.
    """
    totals = store.totals() if store else {}
    measured = _measured(store) if store else {}
    rows = []
    for step, count in requests(recipe).items():
        usage = measured.get(step) or _assumed(recipe, step)
        answered = totals[step].answers if step in totals else 0
        rows.append(_row(recipe, Row(step, answered if done else max(count, answered), answered), usage))
    sums = {name: sum(getattr(row, name) for row in rows) for name in Row.__annotations__ if name not in ("step", "cost")}
    costs = [row.cost for row in rows if row.cost is not None]
    return [*rows, Row("all", **sums, cost=sum(costs) if costs else None)]


def requests(recipe: SynthRecipe) -> dict[str, int]:
    """How many requests every step makes, if answers are as usual."""
    domains = recipe.domains.values()
    written = sum(domain.instructions for domain in domains) / (1 - DROPPED)
    further = written * recipe.turns.share * recipe.turns.number
    samples = sum(
        domain.instructions * domain.check.samples for domain in domains if domain.check and domain.check.by == "agreement"
    )
    counts = {
        "meta_topics": sum(ceil(domain.meta_topics / recipe.topics_per_request) for domain in domains),
        "sub_topics": sum(_parts(domain.sub_topics, domain.meta_topics, recipe.topics_per_request) for domain in domains),
        "instructions": sum(_instruction_requests(recipe, domain) for domain in domains) / (1 - DROPPED),
        "complicate": written * recipe.complicated,
        "responses": written + further,
        "check": samples / (1 - DROPPED),
        "score": written if recipe.score else 0,
        "turns": further,
    }
    return {step: ceil(count) for step, count in counts.items() if count}


def _parts(total: int, receivers: int, most: int) -> int:
    """Requests of at most so many things each, for ``total`` things shared out evenly."""
    return sum(ceil(share / most) for share in shares(total, receivers))


def _instruction_requests(recipe: SynthRecipe, domain: Domain) -> int:
    size = ceil(domain.instructions / domain.sub_topics)
    related = recipe.related
    kinds = mixture({"seed": 1 - related.strong - related.weak, "strong": related.strong, "weak": related.weak}, size)
    return domain.sub_topics * sum(ceil(kinds.count(kind) / recipe.per_request) for kind in set(kinds))


def _row(recipe: SynthRecipe, row: Row, usage: Usage) -> Row:
    left = row.requests - row.answered
    name, _ = recipe.asked(row.step)
    model = recipe.models[name]
    at_once = min(recipe.concurrency, sum(endpoint.max_concurrency for endpoint in model.endpoints), max(left, 1))
    return replace(
        row,
        prompt_tokens=left * usage.prompt,
        answer_tokens=left * usage.answer,
        cost=None if name in recipe.unpriced else left * _price(model, usage),
        seconds=left * usage.seconds / at_once,
    )


def _price(model: Model, usage: Usage) -> float:
    """USD per request, over the endpoints by their weights."""
    weights = sum(endpoint.weight for endpoint in model.endpoints)
    return sum(endpoint.weight / weights * endpoint.cost(usage.prompt, usage.answer) for endpoint in model.endpoints)


def _measured(store: AnswerStore) -> Mapping[str, Usage]:
    rows = store.connection.execute(
        "SELECT step, avg(prompt_tokens), avg(completion_tokens), avg(seconds) FROM requests JOIN answers USING (key) "
        "GROUP BY step HAVING count(*) >= ?",
        [ENOUGH],
    )
    return {step: Usage(*averages) for step, *averages in rows}


def _assumed(recipe: SynthRecipe, step: str) -> Usage:
    template, beside, answer = dict(_assumptions(recipe))[step]
    prompts = Prompts(recipe)
    texts = [prompts.render(template, domain, **VARIABLES[template]) for domain in recipe.domains]
    prompt = sum(map(len, texts)) / len(texts) / CHARACTERS_PER_TOKEN + beside
    return Usage(prompt, answer, 1 + answer / TOKENS_PER_SECOND)


def _assumptions(recipe: SynthRecipe) -> Iterator[tuple[str, tuple[str, float, float]]]:
    """Per step: its template, tokens of the prompt beside the template's, tokens of the answer."""
    half, instruction = recipe.topics_per_request / 2, TOKENS["instruction"]
    shown = (recipe.per_request + recipe.shown + recipe.related.examples) * instruction / 2
    written, conversation = TOKENS["reasoning"] + instruction, instruction + TOKENS["response"]
    yield "meta_topics", ("meta_topics", half * 5, half * TOKENS["topic"])
    yield "sub_topics", ("sub_topics", half * 5, half * TOKENS["topic"])
    yield "instructions", ("related_strong", shown, recipe.per_request * written * 0.8)  # not all requests are full
    yield "complicate", ("complicate", instruction, TOKENS["reasoning"] + TOKENS["rewritten"])
    yield "responses", ("response", instruction + recipe.turns.share * recipe.turns.number * conversation / 2, TOKENS["response"])
    yield "check", ("response", instruction, TOKENS["response"])
    yield "score", ("score", conversation, TOKENS["score"])
    yield "turns", ("user_turn", conversation * (1 + recipe.turns.number) / 2, TOKENS["message"])
