"""What tests of endpoints share: models that a fake server answers for, numbered requests, little patience."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from fake_endpoint import Body, FakeEndpoint
from ultrafuser.endpoints.line import Patience
from ultrafuser.endpoints.models import Endpoint, Model
from ultrafuser.endpoints.request import ChatRequest

QUICK = Patience(tries=6, first_wait=0.01, longest_wait=0.04)


def models(*servers: FakeEndpoint, **settings: Any) -> dict[str, Model]:
    """One model, "m", that all ``servers`` answer for."""
    fields = {"model": "fake", **settings}
    return {"m": Model(endpoints=tuple(Endpoint(base_url=server.base_url, **fields) for server in servers))}


def numbered(count: int, start: int = 0, **fields: Any) -> list[ChatRequest]:
    """Requests that ask "question 0", "question 1", .."""
    return [prompt(f"question {n}", **fields) for n in range(start, start + count)]


def prompt(text: str, **fields: Any) -> ChatRequest:
    """A request that asks ``text``."""
    return ChatRequest(messages=({"role": "user", "content": text},), **{"model": "m", "step": "asking", **fields})


def echo(body: Body, n: int) -> str:
    """A script whose answers show what was asked."""
    return "answer to " + question(body)


def echoes(count: int, start: int = 0) -> list[str]:
    """What `echo` says to `numbered` requests."""
    return [f"answer to question {n}" for n in range(start, start + count)]


def question(body: Body) -> str:
    """What a body asks."""
    return str(body["messages"][-1]["content"])


def often(bodies: Iterable[Body]) -> Counter[str]:
    """How many times each question is in ``bodies``."""
    return Counter(map(question, bodies))
