"""Checks of responses that need more than the text: other samples of it (mathematics), or the sandbox (Python)."""

from __future__ import annotations

import os

from ultrafuser.sandbox import require_level
from ultrafuser.synth.ask import ask, conversation
from ultrafuser.synth.context import Context
from ultrafuser.synth.quality.agreement import agreement_problem
from ultrafuser.synth.quality.programs import program_problems
from ultrafuser.synth.recipe import Check, SynthRecipe
from ultrafuser.synth.record import Item
from ultrafuser.synth.steps.responses import as_it_is


def require_sandbox(recipe: SynthRecipe) -> None:
    """Raise `UserError` if the recipe has programs run, and none may be run here."""
    if any(domain.check is not None and domain.check.by == "programs" for domain in recipe.domains.values()):
        require_level("full")


def check(context: Context, items: list[Item]) -> None:
    """Drop every item whose response does not stand the check of its domain."""
    checks = {name: domain.check for name, domain in context.recipe.domains.items() if domain.check}
    _run_programs([item for item in items if checks[item.domain].by == "programs"])
    _compare(context, [(item, checks[item.domain]) for item in items if checks[item.domain].by == "agreement"])


def _run_programs(items: list[Item]) -> None:
    responses = [item.response or "" for item in items]
    for item, problem in zip(items, program_problems(responses, workers=os.cpu_count() or 2), strict=True):
        if problem:
            item.drop(problem)


def _compare(context: Context, items: list[tuple[Item, Check]]) -> None:
    """Ask the same again, several times, and see how many come to the same final answer."""
    asked = [(item, number) for item, settings in items for number in range(settings.samples)]
    questions = [conversation(context, "check", item.domain, item.turns[:1], (item.id, number)) for item, number in asked]
    samples: dict[str, list[str]] = {item.id: [] for item, _ in items}
    for (item, _), reply in zip(asked, ask(context, questions, as_it_is), strict=True):
        samples[item.id].append(reply.answer.text)
    for item, settings in items:
        if problem := agreement_problem(item.response or "", samples[item.id], settings.share):
            item.drop(problem)
