"""The OpenAI chat protocol: the body of a request, and what a reply means.

A reply that is no answer is a `Failure` of one of four kinds, by whose fault it is: "transient" (ask again), "limited" (ask
again when told), "endpoint" (wrong key, unknown model: nothing will be answered) and "request" (only this one is refused).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ultrafuser.endpoints.limits import Headers, retry_after
from ultrafuser.endpoints.models import Model
from ultrafuser.endpoints.request import ChatRequest

SCHEMA_NAME = "answer"  # the protocol wants one
Kind = Literal["transient", "limited", "endpoint", "request"]
_TRANSIENT = (408, 409, 425)
_NO_SUCH_FIELD = (400, 422, 501)
_OPTIONAL_FIELDS = ("temperature", "top_p", "seed")  # reasoning models and some servers refuse them
_UNKNOWN = re.compile("unsupported|not support|unknown|unrecogni[sz]ed|unexpected|deprecated|not (permitted|allowed)", re.I)


class Failure(Exception):
    """A request that got no answer: whose fault, one line to say, and the seconds to wait if the endpoint gave them."""

    def __init__(self, kind: Kind, message: str, *, wait: float | None = None, status: int = 0):
        super().__init__(message)
        self.kind, self.message, self.wait, self.status = kind, message, wait, status

    def __str__(self) -> str:
        return self.message


@dataclass
class Dialect:
    """What an endpoint understands; learned from what it refuses. ``left_out`` are fields that are not sent any more."""

    structured: bool = True
    tokens_field: str = "max_tokens"
    left_out: frozenset[str] = frozenset()

    def learn(self, body: Mapping[str, Any], failure: Failure) -> Dialect | None:
        """The dialect to try next after ``failure``, or None if there is nothing to leave out of ``body``."""
        if failure.kind != "request" or failure.status not in _NO_SUCH_FIELD:
            return None
        said = str(failure)
        if "max_tokens" in body and "max_completion_tokens" in said:
            return replace(self, tokens_field="max_completion_tokens")
        refused = {name for name in _OPTIONAL_FIELDS if name in body and re.search(rf"\b{name}\b", said)}
        if refused and _UNKNOWN.search(said):
            return replace(self, left_out=self.left_out | refused)
        return replace(self, structured=False) if "response_format" in body else None


@dataclass(frozen=True)
class Completion:
    """The part of a reply that matters."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    model: str


def estimated_tokens(text: str) -> int:
    """About how many tokens a text has, rather too many: three bytes of UTF-8 each."""
    return len(text.encode("utf-8", "replace")) // 3 + 1


def prompt_tokens(request: ChatRequest) -> int:
    """About how many tokens a prompt has, the template's included."""
    return sum(estimated_tokens(message["content"]) + 8 for message in request.messages)


def request_body(request: ChatRequest, settings: Model, model: str, dialect: Dialect) -> dict[str, Any]:
    """The JSON that asks for ``request``; ``model`` is the endpoint's name for it. What is None is left out."""
    body: dict[str, Any] = {"model": model, "messages": [dict(message) for message in request.messages]}
    for name in ("temperature", "top_p", "max_tokens"):
        value = getattr(request, name)
        body[name] = getattr(settings, name) if value is None else value
    body["seed"] = request.seed
    if dialect.tokens_field != "max_tokens":
        body[dialect.tokens_field] = body.pop("max_tokens")
    if request.schema is not None and dialect.structured:
        schema = {"name": SCHEMA_NAME, "strict": True, "schema": request.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return {name: value for name, value in body.items() if value is not None and name not in dialect.left_out}


def read_completion(raw: bytes, request: ChatRequest) -> Completion:
    """What a reply with status 200 says. Raises a transient `Failure` if it is not a completion."""
    reply = _json(raw)
    try:
        choice, usage = reply["choices"][0], reply.get("usage") or {}
        message = choice["message"]
        text = clean(message.get("content") or message.get("refusal") or "")
        counts = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
    except (KeyError, IndexError, TypeError, AttributeError):
        raise Failure("transient", f"the reply is not a chat completion: {_message(reply, raw)}") from None
    prompt = prompt_tokens(request) if counts[0] is None else int(counts[0])
    written = estimated_tokens(text) if counts[1] is None else int(counts[1])
    return Completion(text, str(choice.get("finish_reason") or "stop"), prompt, written, str(reply.get("model") or ""))


def failure_of(status: int, headers: Headers, raw: bytes) -> Failure:
    """What a reply with another status than 200 means."""
    reply = _json(raw)
    message = f"{_message(reply, raw)} (HTTP {status})"
    if status == 402 or (status == 429 and "insufficient_quota" in message + str(_error(reply).get("code"))):
        return Failure("endpoint", message, status=402)
    if status == 429:
        return Failure("limited", message, wait=retry_after(headers), status=status)
    if (status >= 500 and status != 501) or status in _TRANSIENT:
        return Failure("transient", message, wait=retry_after(headers), status=status)
    if status < 400 or status in (401, 403, 404, 405):
        return Failure("endpoint", message, status=status)
    return Failure("request", message, status=status)


def clean(text: Any) -> str:
    """``text`` on which every file agrees: halves of surrogate pairs replaced."""
    return str(text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None


def _error(reply: Any) -> dict[str, Any]:
    """The error object of a reply: OpenAI's ``{"error": {..}}``, vLLM's older flat one, or nothing."""
    error = reply.get("error", reply) if isinstance(reply, dict) else {}
    return error if isinstance(error, dict) else {"message": error}


def _message(reply: Any, raw: bytes) -> str:
    """The reply's own words in one line, cut where they become long."""
    text = str(_error(reply).get("message") or _error(reply).get("detail") or clean(raw[:400].decode("utf-8", "replace")))
    text = " ".join(text.split())
    return text if len(text) <= 300 else f"{text[:297]}..."
