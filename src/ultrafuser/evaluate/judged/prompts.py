"""What the judge is asked: our own prompts (``templates/``), or MT-Bench's official ones where the data directory holds them.

Ours ask for a JSON object with the reason before the verdict, so that the judge thinks first; the schema goes along for endpoints
that can enforce one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined, Template

from ultrafuser.endpoints.request import Message, Schema, record_schema
from ultrafuser.errors import UserError, plural

OFFICIAL_GRADING = ("single-v1", "single-math-v1", "single-v1-multi-turn", "single-math-v1-multi-turn")


class JudgePrompt(NamedTuple):
    """The messages for the judge, and the JSON schema of its answer (None: free text)."""

    messages: tuple[Message, ...]
    schema: Schema | None


def template(name: str) -> str:
    """The source of one of our own prompts, ``compare`` or ``grade``."""
    return files(__package__).joinpath("templates", f"{name}.jinja").read_text(encoding="utf-8")


def comparison(instruction: str, first: str, second: str) -> JudgePrompt:
    """Ask which of two answers to ``instruction`` is better; ``first`` stands as A, ``second`` as B."""
    text = _render("compare", instruction=instruction, first=first, second=second)
    return _asking(text, verdict={"type": "string", "enum": ["A", "B", "tie"]})


def grading(
    turns: Sequence[str], answers: Sequence[str], references: Sequence[str], official: Mapping[str, Mapping[str, str]]
) -> JudgePrompt:
    """Ask for a mark of the last answer of a conversation of one or two turns.

    ``references`` has one reference answer per turn or is empty. ``official`` holds MT-Bench's own prompts by name (see
    `official_prompts`); empty: ours.
    """
    if official:
        return _official(turns, answers, references, official)
    text = _render("grade", turns=turns, answers=answers, references=references)
    return _asking(text, rating={"type": "integer", "enum": list(range(1, 11))})


def official_prompts(records: Sequence[Mapping[str, str]]) -> dict[str, Mapping[str, str]]:
    """MT-Bench's official grading prompts by name, from records with ``name``, ``system_prompt`` and ``prompt``.

    Raises `UserError` when one of the four is missing, or has a field that nothing is known to fill with.
    """
    found = {record["name"]: record for record in records}
    if missing := [name for name in OFFICIAL_GRADING if name not in found]:
        raise UserError(f"mt_bench_judge_prompts: no prompt '{missing[0]}'; remove the file to be judged by our own prompts")
    for turns in (1, 2):
        for references in (0, turns):
            try:
                _official([""] * turns, [""] * turns, [""] * references, found)
            except (LookupError, ValueError, AttributeError, TypeError) as error:
                what = f"the prompt for {plural(turns, 'turn')} cannot be filled in ({error})"
                raise UserError(f"mt_bench_judge_prompts: {what}; remove the file to be judged by our own prompts") from None
    return {name: found[name] for name in OFFICIAL_GRADING}


def _official(
    turns: Sequence[str], answers: Sequence[str], references: Sequence[str], official: Mapping[str, Mapping[str, str]]
) -> JudgePrompt:
    chosen = official[f"single{'-math' if references else ''}-v1{'-multi-turn' if len(turns) > 1 else ''}"]
    fields = {"question": turns[0], "answer": answers[0]}
    for kind, texts in (("question", turns), ("answer", answers), ("ref_answer", references)):
        fields |= {f"{kind}_{index}": text for index, text in enumerate(texts, start=1)}
    user = chosen["prompt"].format(**fields)
    return JudgePrompt(({"role": "system", "content": chosen["system_prompt"]}, {"role": "user", "content": user}), None)


def _asking(text: str, **decision: Schema) -> JudgePrompt:
    """One of our own prompts: the judge gives its reason first, then its ``decision``."""
    return JudgePrompt(({"role": "user", "content": text},), record_schema(reason="string", **decision))


def _render(name: str, **fields: Any) -> str:
    return _compiled(name).render(**fields).strip()


@cache
def _compiled(name: str) -> Template:
    return Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(template(name))
