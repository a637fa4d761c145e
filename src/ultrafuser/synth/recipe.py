"""What a synthesis recipe may say (issue 4, "What to build"); `ultrafuser.config.read_recipe` reads it and reports all mistakes.

The shipped domains (text, code, math) know their description, traits, rules and prompts: a recipe that names one gives only what
it changes, such as the counts. Any other name is a new domain, which describes itself. Paths start at the current directory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import Field

from ultrafuser.endpoints.models import Models
from ultrafuser.errors import did_you_mean
from ultrafuser.io import is_directory, user_path
from ultrafuser.schema import Count, Decay, Name, Number, Positive, Rate, Section, Text, WholeNumber, WholeRecipe
from ultrafuser.synth.quality.rules import Rules
from ultrafuser.testsets import TEST_SETS

Share = Annotated[Number, Field(ge=0, le=1)]
Weights = Annotated[dict[str, Rate], Field(min_length=1)]
CONTENT_FREE = {"description", "output", "budget", "concurrency", "engine", "actors", "max_rounds"}
COUNTS = {"meta_topics", "sub_topics", "instructions"}
PRICES = {"price_input", "price_output"}


class Ask(Section):
    """How a step asks; what is left open is the model's."""

    model: str | None = None  # none: the first of the recipe
    temperature: Decay | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    max_tokens: Positive | None = None


class Steps(Section):
    """The steps that ask a model."""

    meta_topics: Ask = Ask()
    sub_topics: Ask = Ask()
    instructions: Ask = Ask()  # those related to others too
    complicate: Ask = Ask()
    responses: Ask = Ask()  # further answers in a conversation too
    check: Ask = Ask()  # the samples of a check by agreement
    score: Ask = Ask(temperature=0.0)
    turns: Ask = Ask()  # the user's


class Related(Section):
    """The shares of a sub-topic's instructions that are written from others as examples; the rest are seeds."""

    strong: Share = 0.4
    weak: Share = 0.4
    examples: Positive = 3  # shown per request


class Turns(Section):
    """Further turns with a simulated user."""

    share: Share = 0.0  # of the conversations
    number: Positive = 2  # turns after the first


class Check(Section):
    """A check of the answers that a model cannot talk itself through."""

    by: Literal["agreement", "programs"]  # several samples with one final answer; Python runs in the sandbox
    samples: Annotated[WholeNumber, Field(ge=2)] = 4  # by agreement: further answers to the same instruction
    share: Annotated[Number, Field(gt=0, le=1)] = 0.6  # of all answers that must come to the same end


class Score(Section):
    """A model's grade of each conversation, from 1 to 10."""

    minimum: Annotated[WholeNumber, Field(ge=1, le=10)] = 6


class Decontaminate(Section):
    """What may not share a run of words with benchmarks."""

    test_sets: tuple[str, ...] = tuple(TEST_SETS)
    data_dir: str | None = None  # of local test files; none: the hub
    n: Positive = 13


class Domain(Section):
    """A field of knowledge and how many of everything it gets."""

    description: Annotated[str, Field(min_length=1)]  # one or two sentences, as the prompts show it
    meta_topics: Positive
    sub_topics: Positive  # of all meta-topics together
    instructions: Positive  # of all sub-topics together
    traits: dict[str, Weights] = Field(default={})  # what instructions are to vary in: {language: {Python: 3, Rust: 1}}
    rules: Rules = Rules()
    check: Check | None = None
    prompts: str | None = None  # a directory of own templates


class SynthRecipe(WholeRecipe):
    """A whole synthesis. The result is a pure function of this, of the answers and of review decisions."""

    folder: ClassVar[str] = "synth"
    name: Name
    description: str = ""
    output: Text  # a directory: answers.sqlite, then the data and its card
    seed: Count = 0
    models: Annotated[Models, Field(min_length=1)]
    steps: Steps = Steps()
    domains: Annotated[dict[Name, Domain], Field(min_length=1)]
    related: Related = Related()
    complicated: Share = 0.3
    turns: Turns = Turns()
    score: Score | None = None
    decontaminate: Decontaminate | None = None
    duplicate_threshold: Annotated[Number, Field(gt=0, lt=1)] = 0.7  # Jaccard similarity of instructions
    per_request: Positive = 10  # instructions asked for at once
    topics_per_request: Positive = 25
    shown: Count = 20  # instructions that a request shows as already there
    attempts: Positive = 3  # for an answer that can be read
    max_rounds: Positive = 12  # of asking for what a topic lacks
    prompts: str | None = None  # a directory of own templates; a folder in it that is named as a domain is for that domain
    budget: Rate | None = None  # USD
    concurrency: Positive = 200  # requests on their way at once
    engine: Literal["local", "ray"] = "local"  # this process, or actors on a Ray cluster
    actors: Positive = 4  # of ray: how many ask at once

    @classmethod
    def fill(cls, raw: dict[str, Any]) -> None:
        """What the shipped domains know of themselves."""
        domains = raw.get("domains")
        for name, known in shipped_domains().items():
            if isinstance(domains, dict) and name in domains and isinstance(domains[name] or {}, dict):
                domains[name] = known | (domains[name] or {})

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """See `WholeRecipe`; the templates are part of it."""
        from ultrafuser.synth.prompts import template_mistakes

        yield from self._count_contradictions()
        if self.budget and self.unpriced:
            free = "price_input and price_output of all their endpoints (0: costs nothing)"
            yield "budget", f"{self.budget:g} cannot be kept: nothing is counted for {', '.join(self.unpriced)}; give {free}"
        for step, ask in self.steps:
            if ask.model and ask.model not in self.models:
                yield f"steps.{step}.model", _not_one_of(ask.model, self.models)
        for place, name in enumerate(self.decontaminate.test_sets if self.decontaminate else ()):
            if name not in TEST_SETS:
                yield f"decontaminate.test_sets.{place}", _not_one_of(name, TEST_SETS)
        folders = {"prompts": self.prompts} | {f"domains.{name}.prompts": domain.prompts for name, domain in self.domains.items()}
        for key, folder in folders.items():
            if folder and not is_directory(user_path(folder)):
                yield key, f"'{folder}': no such directory"
        yield from template_mistakes(self)

    def _count_contradictions(self) -> Iterator[tuple[str, str]]:
        if (related := self.related.strong + self.related.weak) >= 1:
            yield "related", f"strong and weak are {related:g} together and leave no seeds; lower one"
        for name, domain in self.domains.items():
            for few, many in (("meta_topics", "sub_topics"), ("sub_topics", "instructions")):
                less, more = getattr(domain, few), getattr(domain, many)
                if more < less:
                    yield f"domains.{name}.{many}", f"{more} cannot fill {few}={less}, which get one each at least"

    @property
    def store(self) -> Path:
        """The file of the answers and of all that is made from them."""
        return user_path(self.output) / "answers.sqlite"

    @property
    def unpriced(self) -> list[str]:
        """The models with an endpoint of which the recipe gives no price, of those that steps ask."""
        asked = dict.fromkeys(ask.model or next(iter(self.models)) for _, ask in self.steps)
        known = {name: self.models[name].endpoints for name in asked if name in self.models}
        return [name for name, endpoints in known.items() if any(one.model_fields_set.isdisjoint(PRICES) for one in endpoints)]

    def asked(self, step: str) -> tuple[str, dict[str, Any]]:
        """The name of the model of a step, and the sampling that it is asked with."""
        ask: Ask = getattr(self.steps, step)
        name = ask.model or next(iter(self.models))
        settings = {key: getattr(ask, key) for key in ("temperature", "top_p", "max_tokens")}
        return name, {key: getattr(self.models[name], key) if value is None else value for key, value in settings.items()}

    @property
    def wanted(self) -> str:
        """What may change in a recipe without making it another, and calls for more work, or less."""
        counts = {name: [domain.meta_topics, domain.sub_topics, domain.instructions] for name, domain in self.domains.items()}
        return json.dumps([counts, self.max_rounds])

    @property
    def identity(self) -> str:
        """A hash of everything that content depends on; endpoints, counts, budget and the like may change underway."""
        from ultrafuser.synth.prompts import Prompts

        fields = self.model_dump(mode="json", exclude=CONTENT_FREE)
        for part, free in (("domains", COUNTS), ("models", {"endpoints"})):
            fields[part] = {name: {k: v for k, v in one.items() if k not in free} for name, one in fields[part].items()}
        fields["prompts"] = Prompts(self).hashes()
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


@cache
def shipped_domains() -> dict[str, dict[str, Any]]:
    """Description, traits, rules and checks of the domains that come with the package."""
    text = (resources.files("ultrafuser.synth") / "domains.yaml").read_text(encoding="utf-8")
    loaded: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return loaded


def _not_one_of(name: str, known: Iterable[str]) -> str:
    return f"'{name}' is not one of {', '.join(known)}{did_you_mean(name, known)}"
