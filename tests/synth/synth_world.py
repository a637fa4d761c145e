"""A scripted language model for the synthesis, and a recipe that asks it.

It knows the step by what the prompt asks for and answers from the body alone: topics, instructions, answers are made of random
words that follow from a hash of the body, so the same request gets the same answer whenever it comes. A share of what it writes
is bad on purpose: repeated instructions, refusals, broken code, answers without a final number.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from fake_endpoint import Body, FakeEndpoint
from ultrafuser.config import read_recipe
from ultrafuser.endpoints.engine import LocalEngine
from ultrafuser.endpoints.line import Patience
from ultrafuser.endpoints.request import ChatAnswer, ChatRequest
from ultrafuser.endpoints.store import AnswerStore
from ultrafuser.synth.pipeline import synthesise
from ultrafuser.synth.recipe import SynthRecipe
from ultrafuser.synth.record import Item
from ultrafuser.synth.state import State

WORDS = [
    a + b + c for a in ("ba", "de", "fi", "go", "lu", "ma") for b in ("ro", "ni", "ke", "ta", "su") for c in ("n", "l", "s", "r")
]
BAD = 0.1  # of topics and instructions repeat a common one, and of answers are no good
QUICK = Patience(tries=6, first_wait=0.01, longest_wait=0.04)


class Writer:
    """A script for `fake_endpoint.FakeEndpoint`."""

    def __init__(self, seed: int = 0, bad: float = BAD) -> None:
        self.seed, self.bad = seed, bad

    def __call__(self, body: Body, n: int) -> str:
        prompt = body["messages"][-1]["content"]
        said = json.dumps([self.seed, body["messages"], body.get("seed")], sort_keys=True)
        draw = random.Random(hashlib.sha256(said.encode()).digest())
        properties = body.get("response_format", {}).get("json_schema", {}).get("schema", {}).get("properties", {})
        if "topics" in properties:
            return self.topics(draw, int(re.search(r"Name (\d+)", prompt)[1]))
        if "instructions" in properties:
            return self.instructions(draw, len(re.findall(r"^\d+\. .", prompt, re.MULTILINE)))
        if "instruction" in properties:
            return json.dumps({"instruction": f"Explain with care {words(draw, 14)}."})
        if "message" in properties:
            return json.dumps({"message": f"And what of {words(draw, 5)}?"})
        return self.answer(draw, body["messages"])

    def topics(self, draw: random.Random, count: int) -> str:
        names = [words(draw, 3) if draw.random() > self.bad else "Common things" for _ in range(count)]
        return json.dumps({"topics": [{"name": name, "why": "it matters", "use": "in use"} for name in names]})

    def instructions(self, draw: random.Random, count: int) -> str:
        entries = [{"line": line, "instruction": self.instruction(draw)} for line in range(1, count + 1)]
        return json.dumps({"instructions": entries})

    def instruction(self, draw: random.Random) -> str:
        common = draw.random() < self.bad
        return "Explain the very same old thing to me once more." if common else f"Explain {words(draw, 12)}."

    def answer(self, draw: random.Random, messages: list[dict[str, str]]) -> str:
        if draw.random() < self.bad:
            return "I'm sorry, but I can't help with that."
        text = f"Here it is: {words(draw, 15)}. It follows that {words(draw, 9)}."
        if "Field: code" in str(messages) or "fenced blocks" in messages[0]["content"]:
            return f"{text}\n\n```python\nprint({draw.randrange(100)})\n```"
        return f"{text}\n\nThe answer is $\\boxed{{{draw.randrange(1000)}}}$."


def words(draw: random.Random, count: int) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(count))


class Scripted:
    """An engine that answers from a script, in this process; for what does not need a server."""

    def __init__(self, script: Any) -> None:
        self.script, self.asked = script, list[ChatRequest]()

    def answer(self, requests: Sequence[ChatRequest]) -> list[ChatAnswer]:
        self.asked += requests
        return [ChatAnswer(request.key, self.script(body_of(request), 0), "stop", 1, 1, model="fake") for request in requests]


def body_of(request: ChatRequest) -> Body:
    """What a server would see of a request."""
    body: Body = {"messages": [dict(message) for message in request.messages], "seed": request.seed}
    return body | ({"response_format": {"json_schema": {"schema": request.schema}}} if request.schema else {})


def make_recipe(output: Path, base_url: str = "http://localhost/v1", **changes: Any) -> SynthRecipe:
    """A recipe, read from a file beside its output; unless changed 3 domains of 2 meta-topics, 4 sub-topics, 20 instructions."""
    file = write_recipe(output, base_url, **changes)
    return read_recipe(SynthRecipe, file)


def write_recipe(output: Path, base_url: str, **changes: Any) -> Path:
    """The file that `make_recipe` reads."""
    recipe = {
        "name": "tiny",
        "output": str(output),
        "models": {"writer": {"endpoints": [{"base_url": base_url, "model": "fake"}]}},
        "domains": domains(2, 4, 20),
        "turns": {"share": 0.2, "number": 2},
        "per_request": 4,
    }
    file = output.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(recipe | changes, sort_keys=False), encoding="utf-8")
    return file


def domains(meta_topics: int, sub_topics: int, instructions: int) -> dict[str, Any]:
    """The shipped domains with these counts each."""
    counts = {"meta_topics": meta_topics, "sub_topics": sub_topics, "instructions": instructions}
    return {name: dict(counts) for name in ("text", "code", "math")}


def run(
    recipe: SynthRecipe, asked: FakeEndpoint | Scripted | None = None, *, until: str = "", log: Any = lambda line: None
) -> list[Item]:
    """`synthesise` against a server, or in this process against a `Scripted` engine or a `Writer`; returns all items."""
    recipe.store.parent.mkdir(parents=True, exist_ok=True)
    with AnswerStore(recipe.store) as store:
        store.claim(recipe.identity)
        local = LocalEngine(recipe.models, store, budget=recipe.budget, patience=QUICK)
        engine = local if isinstance(asked, FakeEndpoint) else asked or Scripted(Writer())
        return list(synthesise(recipe, store, engine, until=until, log=log).items())


def tables(recipe: SynthRecipe) -> dict[str, list[dict[str, Any]]]:
    """Everything that was made, to be compared as a whole."""
    with AnswerStore(recipe.store) as store:
        state = State(store)
        return {"topics": [vars(topic) for topic in state.topics(active=False)], "items": [vars(item) for item in state.items()]}


def accepted_per_topic(recipe: SynthRecipe) -> dict[str, int]:
    """How many accepted items every active sub-topic has."""
    with AnswerStore(recipe.store) as store:
        state = State(store)
        counts = state.counts()
        return {topic.id: counts[topic.id, "accepted"] for topic in state.topics("sub_topic")}
