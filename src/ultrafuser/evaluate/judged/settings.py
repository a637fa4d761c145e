"""Who judges, at what price, and where the verdicts are kept: the ``--judge-*`` options of the command line.

Mistakes in the options show here, before any model is loaded; what only the endpoint knows (key, model, is it there at all) is
checked by `check.check_judge`, also before a model answers anything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ultrafuser.endpoints.line import Patience
from ultrafuser.endpoints.models import Endpoint
from ultrafuser.errors import UserError, did_you_mean
from ultrafuser.refused import refused

# What users call the fields of an endpoint, by the client's names.
CALLED = {
    "base_url": "--judge-url",
    "model": "--judge-model",
    "api_key_env": "--judge-key-env",
    "price_input": "--judge-price",
    "price_output": "--judge-price",
    "max_concurrency": "concurrency",
    "timeout_seconds": "timeout",
}
REFERENCES = ("text_davinci_003", "gpt4_1106_preview")


@dataclass(frozen=True)
class JudgeSettings:
    """The judge and what is to be judged. Raises `UserError` for values that cannot be.

    Args:
        base_url: an OpenAI-compatible endpoint, up to and with ``/v1`` (``--judge-url``).
        model: the judge, as the endpoint calls it (``--judge-model``).
        store: the file in which verdicts are kept, in a directory that exists; one for all models and tasks.
        api_key_env: the environment variable that holds the key; None for servers without keys (``--judge-key-env``).
        prices: USD per million tokens that go in and come out (``--judge-price IN,OUT``, see `parse_prices`).
        budget: USD that everything in ``store`` may cost together (``--judge-budget``); None: no cap.
        moved: the verdicts in ``store`` are this judge's wherever they came from (``--judge-moved``); it is kept there.
        reference: whose answers AlpacaEval compares with, one of `REFERENCES`; the paper's is text_davinci_003.
        data_dir: local test data; None: from the hub.
        limit: only so many questions of each task, the first in the file.
        seed: of the judge's sampling and of the order in which questions are judged.
        concurrency: requests on their way to the judge at once.
        timeout: seconds for one verdict.
        patience: with an endpoint that fails.
    """

    base_url: str
    model: str
    store: Path
    api_key_env: str | None = None
    prices: tuple[float, float] = (0.0, 0.0)
    budget: float | None = None
    moved: bool = False
    reference: str = REFERENCES[0]
    data_dir: Path | None = None
    limit: int | None = None
    seed: int = 0
    concurrency: int = 16
    timeout: float = 120.0
    patience: Patience = field(default_factory=Patience)

    def __post_init__(self) -> None:
        if self.reference not in REFERENCES:
            near = did_you_mean(self.reference, REFERENCES)
            raise UserError(f"reference '{self.reference}' of alpaca_eval is not one of {', '.join(REFERENCES)}{near}")
        if self.budget is not None and not (math.isfinite(self.budget) and self.budget > 0):
            raise UserError(f"--judge-budget: {self.budget:g} is no budget; give an amount in USD above 0")
        if self.budget is not None and not any(self.prices):
            raise UserError("--judge-budget needs --judge-price IN,OUT (USD per million tokens): nothing is counted without")
        if self.limit is not None and self.limit < 1:
            raise UserError(f"limit: {self.limit} questions cannot be judged; give 1 or more, or leave it out")
        _ = self.endpoint

    @property
    def endpoint(self) -> Endpoint:
        """The judge as the client takes it. Raises `UserError` for values that it refuses."""
        try:
            return Endpoint(
                base_url=self.base_url,
                model=self.model,
                api_key_env=self.api_key_env,
                max_concurrency=self.concurrency,
                timeout_seconds=self.timeout,
                price_input=self.prices[0],
                price_output=self.prices[1],
            )
        except ValidationError as error:
            place, text = next(iter(refused(Endpoint, error).items()))
            raise UserError(f"{CALLED[str(place[0])]}{text}") from None


def judge_from_options(
    url: str | None,
    model: str | None,
    *,
    price: str | None,
    api_key_env: str | None,
    budget: float | None,
    reference: str | None,
    moved: bool,
    **others: Any,
) -> JudgeSettings | None:
    """The judge that the ``--judge-*`` options describe, None where none of them was given; ``others`` are further fields.

    Raises `UserError` for half of a judge, for options without one (they would be ignored) and for values that cannot be.
    """
    about = {"price": price, "key-env": api_key_env, "budget": budget, "reference": reference, "moved": moved or None}
    given = [f"--judge-{name}" for name, value in about.items() if value is not None]
    if url is None and model is None:
        if given:
            raise UserError(f"{given[0]}: there is no judge; give --judge-url and --judge-model too, or leave it out")
        return None
    if url is None or model is None:
        raise UserError("--judge-url and --judge-model are given together")
    prices = (0.0, 0.0) if price is None else parse_prices(price)
    reference = REFERENCES[0] if reference is None else reference
    return JudgeSettings(
        url, model, prices=prices, api_key_env=api_key_env, budget=budget, reference=reference, moved=moved, **others
    )


def parse_prices(text: str) -> tuple[float, float]:
    """``"2.5,10"`` as USD per million tokens that go in and come out. Raises `UserError`."""
    try:
        price_in, price_out = (float(part) for part in text.split(","))
    except ValueError:
        message = f"--judge-price: '{text}' is not IN,OUT; give USD per million tokens in and out, such as 2.5,10"
        raise UserError(message) from None
    return price_in, price_out
