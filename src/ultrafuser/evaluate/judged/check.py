"""Is the judge there, is the key right, does it know the model? Asked before the model under test answers anything.

And is it the one whose verdicts are kept? A verdict is known by the judge's name, so that a server may move, but two servers may
well give one name to two models. So verdicts from another URL are only used when the user says that it is the same judge.

Lenient, since endpoints differ: one that lists no models is taken at its word, and a model counts as listed under a longer or
shorter name ("llama3" for "llama3:latest", "models/gemini-x" for "gemini-x"). What this lets through shows with the first
verdict.
"""

from __future__ import annotations

import http.client
import json
import urllib.error

from ultrafuser.endpoints.fetch import fetch, reason
from ultrafuser.endpoints.store import AnswerStore
from ultrafuser.errors import UserError, did_you_mean
from ultrafuser.evaluate.judged.settings import JudgeSettings

SECONDS = 15.0
NAMED = 5  # models in an error message


def require_same_judge(settings: JudgeSettings) -> None:
    """Raise `UserError` if the store has verdicts of this judge's name from another URL, unless it is said to have moved."""
    if settings.moved or not settings.store.is_file():
        return
    with AnswerStore(settings.store, read_only=True) as store:
        others = [url for url in store.endpoints(settings.model) if url != settings.endpoint.base_url]
    if others:
        raise UserError(
            f"{settings.store}: holds verdicts of '{settings.model}' from {others[0]}, not from {settings.endpoint.base_url}; "
            "if that is the same judge give --judge-moved, else choose another --out"
        )


def check_judge(settings: JudgeSettings) -> None:
    """Raise `UserError` when the key's variable is not set, nobody answers, the key is refused or the model unknown, and as
    `require_same_judge` does."""
    require_same_judge(settings)
    endpoint = settings.endpoint
    try:
        known = _names(fetch(f"{endpoint.base_url}/models", endpoint.api_key(), seconds=min(SECONDS, settings.timeout)))
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            key = f"the environment variable {endpoint.api_key_env}" if endpoint.api_key_env else "--judge-key-env (not given)"
            raise UserError(f"judge {endpoint.base_url}: refuses the key (HTTP {error.code}); check {key}") from None
        return
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"judge {endpoint.base_url}: cannot be reached ({reason(error)}); check --judge-url") from None
    if known and not any(name in settings.model or settings.model in name for name in known):
        near = did_you_mean(settings.model, known)
        shown = ", ".join(known[:NAMED]) + (", .." if len(known) > NAMED else "")
        raise UserError(f"judge {endpoint.base_url}: has no model '{settings.model}', only {shown}{near}; check --judge-model")


def _names(reply: bytes) -> list[str]:
    """The models that an endpoint lists, or nothing if this is no list."""
    try:
        return [str(model["id"]) for model in json.loads(reply)["data"]]
    except (ValueError, KeyError, TypeError):
        return []
