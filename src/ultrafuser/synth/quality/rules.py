"""The rules that instructions and answers must pass, by name, so that a recipe can say per domain which ones apply.

A rule looks at one text and gives the reason to drop it, or None; reasons begin with the rule's title, so that drops can be
counted by it. Limits of length are in characters: words mean little in Chinese or in code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, TypeVar

from pydantic import AfterValidator

from ultrafuser.errors import did_you_mean
from ultrafuser.schema import Count, Section, Strings
from ultrafuser.synth.quality.code import code_problem
from ultrafuser.synth.quality.endings import cut_off
from ultrafuser.synth.quality.final_answer import final_answer
from ultrafuser.synth.quality.language import language_problem
from ultrafuser.synth.quality.markdown import Document, read_markdown
from ultrafuser.synth.quality.phrases import find_placeholder, find_unseen
from ultrafuser.synth.quality.refusals import find_ai_self, find_refusal, find_refused_instruction
from ultrafuser.synth.quality.repetition import find_loop


@dataclass(frozen=True)
class Response:
    """An answer, what it answers, and how the endpoint says it ended."""

    instruction: str
    text: str
    finish_reason: str = "stop"

    @cached_property
    def markdown(self) -> Document:
        return read_markdown(self.text)


Subject = TypeVar("Subject")
InstructionRule = Callable[[str], str | None]
ResponseRule = Callable[[Response], str | None]

# What a rule finds is put behind its title: "refusal: I'm sorry, but I can't".
INSTRUCTION_RULES: Mapping[str, tuple[str, InstructionRule]] = {
    "unseen_material": ("unseen material", find_unseen),
    "placeholder": ("placeholder", find_placeholder),
    "refusal": ("refusal", find_refused_instruction),  # the model declined to write an instruction
}
RESPONSE_RULES: Mapping[str, tuple[str, ResponseRule]] = {
    "truncation": ("cut off", lambda response: cut_off(response.markdown, response.text, response.finish_reason)),
    "refusal": ("refusal", lambda response: find_refusal(response.text)),
    "ai_self": ("speaks of itself as an AI", lambda response: find_ai_self(response.instruction, response.text)),
    "placeholder": ("placeholder", lambda response: find_placeholder(response.text, instruction=response.instruction)),
    "language": ("language mix", lambda response: language_problem(response.instruction, response.markdown.prose)),
    "loop": ("loop", lambda response: find_loop(response.markdown.prose)),
    "closed_fences": ("code block not closed", lambda response: _open_fence(response.markdown)),
    "code_parses": ("code does not parse", lambda response: code_problem(response.markdown.blocks)),
    "final_answer": ("no final answer", lambda response: None if final_answer(response.text) else "nothing that can be checked"),
}
NAMES = tuple(dict.fromkeys([*INSTRUCTION_RULES, *RESPONSE_RULES]))
GENERAL = tuple(name for name in NAMES if name not in ("code_parses", "final_answer"))


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    unknown = [f"rule {name!r} is not known{did_you_mean(name, NAMES)}" for name in names if name not in NAMES]
    if unknown:
        raise ValueError(f"{', '.join(unknown)} (known: {', '.join(NAMES)})")
    return names


class Rules(Section):
    """The rules of a domain: their names, and the limits of length in characters."""

    names: Annotated[Strings, AfterValidator(_known)] = GENERAL
    shortest_instruction: Count = 8
    longest_instruction: Count = 12000
    shortest_response: Count = 1
    longest_response: Count = 24000


def check_instruction(rules: Rules, text: str) -> str | None:
    """The reason to drop an instruction, or None."""
    if problem := _length(text, rules.shortest_instruction, rules.longest_instruction):
        return problem
    return next(_found(rules, INSTRUCTION_RULES, text), None)


def check_response(rules: Rules, instruction: str, text: str, finish_reason: str = "stop") -> str | None:
    """The reason to drop an answer, or None. An empty answer, and an error instead of one, are dropped whatever the rules."""
    if finish_reason.startswith("error"):
        return f"no answer: {finish_reason}"
    if problem := _length(text, rules.shortest_response, rules.longest_response):
        return problem
    return next(_found(rules, RESPONSE_RULES, Response(instruction, text, finish_reason)), None)


def reason_title(reason: str) -> str:
    """The part of a reason that drops are counted by: what stands before the colon."""
    return reason.partition(":")[0]


def _found(rules: Rules, table: Mapping[str, tuple[str, Callable[[Subject], str | None]]], subject: Subject) -> Iterator[str]:
    """What the rules that apply find, in the order of the table."""
    for name, (title, rule) in table.items():
        if name in rules.names and (found := rule(subject)):
            yield f"{title}: {found}"


def _length(text: str, shortest: int, longest: int) -> str | None:
    count = len(text.strip())
    if not count:
        return "empty"
    if count < shortest:
        return f"too short: {count} characters"
    return f"too long: {count} characters" if count > longest else None


def _open_fence(document: Document) -> str | None:
    return next((block.language or "no language" for block in document.blocks if not block.closed), None)
