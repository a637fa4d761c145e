"""What is asked of a language model and what comes back; a request is known by its content (issue part "Nothing bought twice").

The key of a request covers all that is asked, but neither the step it is for nor the endpoint that will answer. Sampling that
a request leaves open is its model's, so the identity of a store (`AnswerStore.claim`) should cover the models.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Message = Mapping[str, str]  # {"role": "system" | "user" | "assistant", "content": ".."}
Schema = Mapping[str, Any]  # a JSON schema


@dataclass(frozen=True)
class ChatRequest:
    """One question to a chat model.

    Args:
        model: name of a model in the recipe or on the command line, not of an endpoint.
        messages: the conversation so far.
        step: what it is for; only for accounting.
        temperature, top_p, max_tokens: sampling; None leaves it to the model's settings.
        seed: handed to the endpoint, which may ignore it.
        schema: JSON schema of the answer, sent as structured output to endpoints that have it (see `record_schema`).
        attempt: above 0 asks the same thing anew.
    """

    model: str
    messages: tuple[Message, ...]
    step: str = ""
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int | None = None
    schema: Schema | None = None
    attempt: int = 0

    @cached_property
    def content(self) -> str:
        """Everything but ``step`` as canonical JSON; `from_content` reads it."""
        fields = {name: value for name, value in vars(self).items() if name in self.__dataclass_fields__ and name != "step"}
        return json.dumps(fields, sort_keys=True, separators=(",", ":"))

    @cached_property
    def key(self) -> str:
        """SHA-256 of `content`, in hex."""
        return hashlib.sha256(self.content.encode()).hexdigest()

    @classmethod
    def from_content(cls, content: str, step: str = "") -> ChatRequest:
        """The request that has this `content`."""
        fields = json.loads(content)
        return cls(**{**fields, "messages": tuple(fields["messages"])}, step=step)


@dataclass(frozen=True)
class ChatAnswer:
    """What an endpoint answered to the request of that ``key``.

    ``finish_reason`` is the endpoint's ("stop", "length", "content_filter") or "error: .." for a request that was refused or
    kept failing; such an answer has no text, is not final and is asked again by the next run. ``model`` is the name that the
    endpoint reports, ``endpoint`` its URL, ``cost`` in USD, ``seconds`` from sending to the last byte.
    """

    key: str
    text: str
    finish_reason: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    model: str = ""
    endpoint: str = ""
    seconds: float = 0.0

    @property
    def failed(self) -> bool:
        """Is this the record of an error rather than an answer?"""
        return self.finish_reason.startswith("error: ")


def record_schema(**properties: Schema | str) -> Schema:
    """The JSON schema of an object with exactly these properties; a word stands for a type.

    All are required and no others allowed: some endpoints take no other schema.
    """
    typed = {name: {"type": value} if isinstance(value, str) else value for name, value in properties.items()}
    return {"type": "object", "properties": typed, "required": list(typed), "additionalProperties": False}
