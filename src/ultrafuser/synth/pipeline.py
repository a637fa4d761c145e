"""The run as a whole: step after step until every quota is full or nothing more can be asked (paper, section 4).

One position, kept in the store, says which step is next. A pass goes through all steps: topics, sub-topics, instructions, then
what each instruction goes through; what was dropped on the way is asked for anew in the next pass. A step reads the tables, asks,
and commits what came of it as one round, so a killed run goes on from its last round with the answers it had.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from ultrafuser.endpoints.engine import Engine
from ultrafuser.endpoints.progress import duration
from ultrafuser.endpoints.store import AnswerStore
from ultrafuser.synth.ask import BATCH
from ultrafuser.synth.context import Context
from ultrafuser.synth.decisions import carry_out
from ultrafuser.synth.recipe import SynthRecipe
from ultrafuser.synth.record import Item, Topic
from ultrafuser.synth.state import State
from ultrafuser.synth.steps import instructions, topics
from ultrafuser.synth.steps.check import check, require_sandbox
from ultrafuser.synth.steps.complicate import complicate
from ultrafuser.synth.steps.flow import DONE, advance
from ultrafuser.synth.steps.responses import respond
from ultrafuser.synth.steps.score import score
from ultrafuser.synth.steps.turns import go_on

ITEM_STEPS: Mapping[str, Callable[[Context, list[Item]], None]] = {
    "complicate": complicate,
    "responses": respond,
    "check": check,
    "score": score,
    "turns": go_on,
}


def _through_items(step: str, context: Context) -> None:
    """Take every item that waits for a step through it."""
    state, start, done = context.state, time.monotonic(), 0
    total = state.waiting(step)
    while items := list(state.items("pending", step=step, limit=BATCH)):
        ITEM_STEPS[step](context, items)
        for item in items:
            if item.status == "pending":
                advance(context.recipe, item)
        with state.transaction():
            state.save_items(items)
        done += len(items)
        if done < total:
            left = duration((time.monotonic() - start) / done * (total - done))
            context.log(f"{step}: {done:,} of {total:,} conversations, about {left} left for the others")


STEPS: Mapping[str, Callable[[Context], None]] = {
    "meta_topics": partial(topics.fill, step="meta_topics"),
    "sub_topics": partial(topics.fill, step="sub_topics"),
    "instructions": instructions.fill,
    **{name: partial(_through_items, name) for name in ITEM_STEPS},
}
FIRST, ORDER = next(iter(STEPS)), [*STEPS, DONE]


def synthesise(
    recipe: SynthRecipe, store: AnswerStore, engine: Engine, *, until: str = "", log: Callable[[str], None] = print
) -> State:
    """Run the recipe as far as it goes, or up to and with the step ``until``. Raises `UserError`; then the same call goes on."""
    state = State(store)
    context = Context(recipe, state, engine, log)
    _begin(context)
    while (step := state.position[0]) != DONE and not (until and ORDER.index(step) > ORDER.index(until)):
        STEPS[step](context)
        with state.transaction():
            carry_out(state)  # on what is new
            following = ORDER[ORDER.index(step) + 1]
            state.move_to(FIRST if following == DONE and _can_go_on(context) else following, recipe.wanted)
    for line in shortages(context):
        log(line)
    return state


def _begin(context: Context) -> None:
    """Make the tables ready. New decisions or other counts than before send the run through all steps again."""
    state, wanted = context.state, context.recipe.wanted
    with state.transaction():
        known = {topic.id for topic in state.topics("domain")}
        state.save_topics(Topic(name, name) for name in context.recipe.domains if name not in known)
        decided = carry_out(state)
        if decided or state.position[1] != wanted:
            state.move_to(FIRST, wanted)
    if state.position[0] != DONE:  # what is missing is told before anything is asked
        require_sandbox(context.recipe)
        _ = context.benchmarks


def _can_go_on(context: Context) -> bool:
    """Does anything lack what may still be asked for?"""
    lacking = [parent.topic for step in topics.STEPS for parent in topics.parents(context, step) if parent.missing > 0]
    lacking += [quota.topic for quota in instructions.quotas(context) if quota.missing]
    return any(topic.rounds < context.recipe.max_rounds for topic in lacking)


def shortages(context: Context) -> Iterator[str]:
    """One line for every topic that has fewer than it should, of the steps that are done."""
    at = ORDER.index(context.state.position[0])
    for step in topics.STEPS:
        for parent in topics.parents(context, step) if at > ORDER.index(step) else ():
            if parent.missing > 0:
                yield _shortage(parent.topic, parent.missing, parent.quota, step.replace("_", "-"))
    for quota in instructions.quotas(context) if ORDER[at] == DONE else ():
        if quota.missing:
            yield _shortage(quota.topic, len(quota.missing), quota.size, "instructions")


def _shortage(topic: Topic, missing: int, wanted: int, what: str) -> str:
    return f"{topic.id} ({topic.name}): short of {missing} of {wanted} {what} after {topic.rounds} rounds"
