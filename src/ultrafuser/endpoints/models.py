"""What a recipe says about its language models: names, the endpoints that answer for them, prices (issue part "Any endpoint")."""

from __future__ import annotations

import os
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from ultrafuser.errors import UserError, did_you_mean
from ultrafuser.schema import Decay, Name, Number, Positive, Rate, Section


def _base_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be a URL such as http://localhost:8000/v1")
    if parts.username or parts.password or parts.query:
        raise ValueError("must not hold a user, password or query; name the key's environment variable in api_key_env")
    return url.rstrip("/")


class Endpoint(Section):
    """One server that speaks the OpenAI chat protocol."""

    base_url: Annotated[str, AfterValidator(_base_url)]  # up to and with /v1
    model: Annotated[str, Field(min_length=1)]  # as the endpoint calls it
    api_key_env: str | None = None  # the environment variable that holds the key; none for servers without keys
    weight: Rate = 1.0  # its share of the model's requests, in proportion to the others' weights
    max_concurrency: Positive = 32  # requests on their way at once
    timeout_seconds: Rate = 120.0  # for one whole answer
    price_input: Decay = 0.0  # USD per million tokens
    price_output: Decay = 0.0
    structured_output: Literal["auto", "on", "off"] = "auto"  # auto: until the endpoint refuses it

    def api_key(self) -> str | None:
        """The key, read from the environment when it is needed. Raises `UserError` if the variable is not set or holds none."""
        return None if self.api_key_env is None else read_key(self.api_key_env, self.base_url)

    def cost(self, prompt_tokens: float, completion_tokens: float) -> float:
        """USD for so many tokens."""
        return (prompt_tokens * self.price_input + completion_tokens * self.price_output) / 1e6


class Model(Section):
    """A model by the name that requests use: who answers for it, and the sampling that requests leave open."""

    endpoints: Annotated[tuple[Endpoint, ...], Field(min_length=1)]
    temperature: Decay | None = None
    top_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    max_tokens: Positive | None = None


Models = dict[Name, Model]


def read_key(variable: str, base_url: str) -> str:
    """The key of an endpoint from that environment variable. Raises `UserError` if it is not set or holds none."""
    if not (key := os.environ.get(variable, "").strip()):
        raise UserError(f"{base_url}: the environment variable {variable} (api_key_env) is not set; put the key there")
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"{base_url}: the environment variable {variable} holds letters that no key has; copy it anew")
    return key


def find_model(models: Models, name: str) -> Model:
    """The model of that name. Raises `UserError`."""
    if name not in models:
        raise UserError(f"model '{name}' is not one of {', '.join(models)}{did_you_mean(name, models)}")
    return models[name]
