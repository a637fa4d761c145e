"""Is the judge there, is the key right, does it know the model? Asked before the model under test answers anything.

Lenient, since endpoints differ: one that lists no models is taken at its word, and a model counts as listed under a longer or
shorter name ("llama3" for "llama3:latest", "models/gemini-x" for "gemini-x"). What this lets through shows with the first
verdict.
"""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any

from ultrafuser.endpoints.models import Endpoint
from ultrafuser.errors import UserError, did_you_mean
from ultrafuser.evaluate.judged.settings import JudgeSettings

SECONDS = 15.0
NAMED = 5  # models in an error message


def check_judge(settings: JudgeSettings) -> None:
    """Raise `UserError` when the key's variable is not set, nobody answers, the key is refused or the model unknown."""
    endpoint = settings.endpoint
    try:
        known = _names(_list_models(endpoint, min(SECONDS, settings.timeout)))
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            key = f"the environment variable {endpoint.api_key_env}" if endpoint.api_key_env else "--judge-key-env (not given)"
            raise UserError(f"judge {endpoint.base_url}: refuses the key (HTTP {error.code}); check {key}") from None
        return
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"judge {endpoint.base_url}: cannot be reached ({_reason(error)}); check --judge-url") from None
    if known and not any(name in settings.model or settings.model in name for name in known):
        near = did_you_mean(settings.model, known)
        shown = ", ".join(known[:NAMED]) + (", .." if len(known) > NAMED else "")
        raise UserError(f"judge {endpoint.base_url}: has no model '{settings.model}', only {shown}{near}; check --judge-model")


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", error)  # urllib wraps what went wrong
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    return str(getattr(cause, "strerror", None) or cause or type(cause).__name__)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The key must not travel to another place."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _list_models(endpoint: Endpoint, timeout: float) -> bytes:
    key = endpoint.api_key()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(f"{endpoint.base_url}/models", headers=headers)
    with urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout) as response:
        return bytes(response.read())


def _names(reply: bytes) -> list[str]:
    """The models that an endpoint lists, or nothing if this is no list."""
    try:
        return [str(model["id"]) for model in json.loads(reply)["data"]]
    except (ValueError, KeyError, TypeError):
        return []
