"""From a prompt to a request, from an answer to what it holds; an answer that cannot be read is asked for again.

What a reasoning model thinks aloud is put aside before anything is read, and so gets into no data; the store keeps it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from ultrafuser.endpoints.lenient import parse_json
from ultrafuser.endpoints.request import ChatAnswer, ChatRequest, Schema, record_schema
from ultrafuser.endpoints.thoughts import without_thoughts
from ultrafuser.synth.context import Context
from ultrafuser.synth.plan import number
from ultrafuser.synth.record import Turn

Content = TypeVar("Content")
BATCH = 10_000  # requests handed to the engine at once: enough to keep every endpoint busy, few enough for memory
# Models forget that JSON wants backslashes doubled. "\\sqrt" is no valid escape; "\\frac" is one, but of a form feed and "rac".
_ESCAPE = re.compile(r"""\\(["\\/bfnrt]|u[0-9a-fA-F]{4})|\\""")
_LETTERS = {"\f": "f", "\b": "b", "\t": "t", "\r": "r", "\n": "n"}
_MISREAD = re.compile(r"[\f\x08]|\t(?=(?:imes|ext|heta|an|au|riangle)\b)|\r(?=(?:ight|ho|angle)\b)|\n(?=(?:eq|abla|otin)\b)")


@dataclass(frozen=True)
class Question:
    """A request and the hash of the prompt's template."""

    request: ChatRequest
    prompt: str


@dataclass(frozen=True)
class Reply(Generic[Content]):
    """An answer and what was read from it; without ``content`` there is a ``problem``."""

    answer: ChatAnswer
    content: Content | None
    problem: str
    provenance: dict[str, Any]  # where the content comes from, as records keep it


def question(context: Context, step: str, template: str, domain: str, names: Sequence[object], **variables: Any) -> Question:
    """A question in one user message. ``names`` tell it from others of the step, whatever its text; the seed comes from them."""
    schema = variables.pop("schema", None)
    text = context.prompts.render(template, domain, **variables)
    return _question(context, step, context.prompts.hash(template, domain), ({"role": "user", "content": text},), names, schema)


def conversation(context: Context, step: str, domain: str, turns: Sequence[Turn], names: Sequence[object]) -> Question:
    """The question for the next answer in a conversation; the prompt is its system message, and JSON is not asked for."""
    system = {"role": "system", "content": context.prompts.render("response", domain)}
    return _question(context, step, context.prompts.hash("response", domain), (system, *turns), names, None)


def _question(
    context: Context, step: str, prompt: str, messages: tuple[Turn, ...], names: Sequence[object], schema: Schema | None
) -> Question:
    model, sampling = context.recipe.asked(step)
    seed = number(context.recipe.seed, step, *names)
    return Question(ChatRequest(model, messages, step, seed=seed, schema=schema, **sampling), prompt)


def ask(context: Context, questions: Sequence[Question], read: Callable[[ChatAnswer], Content]) -> list[Reply[Content]]:
    """The replies in the order of ``questions``. Where ``read`` raises `ValueError` it is asked again, as the recipe allows."""
    replies: dict[int, Reply[Content]] = {}
    for attempt in range(context.recipe.attempts):
        waiting = [place for place in range(len(questions)) if place not in replies or _unreadable(replies[place])]
        for start in range(0, len(waiting), BATCH):
            places = waiting[start : start + BATCH]
            asked = [_attempt(questions[place], attempt) for place in places]
            answers = context.engine.answer([question.request for question in asked])
            for place, question, answer in zip(places, asked, answers, strict=True):
                replies[place] = _reply(question, answer, read)
    if lost := [reply for reply in replies.values() if reply.content is None]:
        what = f"{len(lost)} of {len(questions)} requests brought nothing"
        context.log(f"{questions[0].request.step}: {what}, the first one because of: {lost[0].problem}")
    return [replies[place] for place in range(len(questions))]


def _attempt(question: Question, attempt: int) -> Question:
    """The question asked once more; with another seed, so that an endpoint that minds it does not say the same again."""
    seed = (question.request.seed or 0) + attempt
    return replace(question, request=replace(question.request, attempt=attempt, seed=seed))


def _unreadable(reply: Reply[Content]) -> bool:
    return reply.content is None and not reply.answer.failed  # the engine has tried the failed ones often enough


def _reply(asked: Question, answer: ChatAnswer, read: Callable[[ChatAnswer], Content]) -> Reply[Content]:
    provenance = _provenance(asked, answer)
    answer = replace(answer, text=without_thoughts(answer.text))
    if answer.failed:
        return Reply(answer, None, answer.finish_reason, provenance)
    try:
        return Reply(answer, read(answer), "", provenance)
    except ValueError as error:
        return Reply(answer, None, f"unreadable answer: {error}", provenance)


def _provenance(asked: Question, answer: ChatAnswer) -> dict[str, Any]:
    request = asked.request
    origin = {"key": answer.key, "prompt": asked.prompt, "model": answer.model, "endpoint": answer.endpoint}
    sampling = {name: getattr(request, name) for name in ("temperature", "top_p", "max_tokens", "seed", "attempt")}
    return {**origin, "sampling": {name: value for name, value in sampling.items() if value is not None}}


def list_schema(name: str, /, **properties: str) -> Schema:
    """The JSON schema of ``{name: [{..}, ..]}``."""
    return record_schema(**{name: {"type": "array", "items": record_schema(**properties)}})


def read_list(answer: ChatAnswer, name: str) -> list[Any]:
    """The entries of ``{name: [..]}``; of a list that was cut off, all but the last. Raises `ValueError` if there are none."""
    value, whole = _json(answer, name)
    if isinstance(value, dict):
        value = value.get(name) or next((inner for inner in value.values() if isinstance(inner, list)), None)
    entries = value if isinstance(value, list) else []
    entries = entries if whole else entries[:-1]
    if not entries:
        raise ValueError(f"no list of {name}")
    return entries


def read_text(answer: ChatAnswer, schema: Schema, name: str) -> str:
    """The text ``name`` of an object of that schema. Raises `ValueError` if there is none, or only the beginning of one."""
    if not (text := text_of(read_object(answer, schema).get(name))):
        raise ValueError(f"no {name}")
    return text


def read_object(answer: ChatAnswer, schema: Schema) -> dict[str, Any]:
    """The object of that schema, which may begin with any of its keys. Raises `ValueError` as `read_text` does."""
    value, whole = _json(answer, *schema["properties"])
    if not whole or not isinstance(value, dict):
        raise ValueError(f"no object of {' and '.join(schema['properties'])}")
    return value


def text_of(value: Any) -> str:
    """A text without white space around it; empty if it is none. LaTeX that was read as control characters is LaTeX again."""
    return _MISREAD.sub(lambda match: f"\\{_LETTERS[match[0]]}", value).strip() if isinstance(value, str) else ""


def _json(answer: ChatAnswer, *keys: str) -> tuple[Any, bool]:
    """The JSON in an answer, whatever stands around it, and whether it is whole: not cut off, in no need of repair."""
    text = _ESCAPE.sub(lambda match: match[0] if match[1] else r"\\", answer.text)
    start = re.search(rf'{{\s*"(?:{"|".join(keys)})"\s*:', text) or re.search(r"[{\[]", text)
    text = text[start.start() :] if start else text
    try:
        return json.JSONDecoder(strict=False).raw_decode(text)[0], True
    except ValueError:
        return parse_json(text), False
