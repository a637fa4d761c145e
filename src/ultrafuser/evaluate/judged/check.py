"""Is the judge there, is the key right, does it know the model? Asked before the model under test answers anything.

And is it the one whose verdicts are kept? A verdict is known by the judge's name, so that a server may move, but two servers may
well give one name to two models. So verdicts from another URL are only used when the user says that it is the same judge. That
is kept beside them and need be said once: all URLs that answered, or were said to be this judge's, are.

Lenient, since endpoints differ: a model counts as listed under a longer or shorter name ("llama3" for "llama3:latest",
"models/gemini-x" for "gemini-x"). An endpoint that lists no models, as one without its ``/v1`` does not, is asked a question.
"""

from __future__ import annotations

import http.client
import json
import urllib.error

from ultrafuser.endpoints.fetch import fetch, reason
from ultrafuser.endpoints.store import AnswerStore
from ultrafuser.errors import UserError, did_you_mean
from ultrafuser.evaluate.judged.judge import GREETING_STEP, open_judge
from ultrafuser.evaluate.judged.settings import JudgeSettings

SECONDS = 15.0
NAMED = 5  # models in an error message


def require_same_judge(settings: JudgeSettings) -> None:
    """Raise `UserError` if the store has verdicts of this judge's name from other URLs only, unless it is said to have moved."""
    if settings.moved or not settings.store.is_file():
        return
    url = settings.endpoint.base_url
    with AnswerStore(settings.store, read_only=True) as store:
        known = store.endpoints(settings.model, besides=GREETING_STEP)
        accepted = store.remembered(_moved_to(settings)) is not None
    if known and url not in known and not accepted:
        raise UserError(
            f"{settings.store}: holds verdicts of '{settings.model}' from {known[0]}, not from {url}; "
            "if that is the same judge give --judge-moved, else choose another --out"
        )


def check_judge(settings: JudgeSettings) -> None:
    """Raise `UserError` when the key's variable is not set, nobody answers, the key is refused or the model unknown, and as
    `require_same_judge` does. That the judge is said to have moved is kept, once it has been found."""
    require_same_judge(settings)
    known = _listed_models(settings)
    if not known:
        with open_judge(settings) as judge:
            judge.require_answer()
    elif not any(name in settings.model or settings.model in name for name in known):
        near = did_you_mean(settings.model, known)
        shown = ", ".join(known[:NAMED]) + (", .." if len(known) > NAMED else "")
        raise UserError(
            f"judge {settings.endpoint.base_url}: has no model '{settings.model}', only {shown}{near}; check --judge-model"
        )
    if settings.moved:
        with AnswerStore(settings.store) as store:
            store.remember(_moved_to(settings))


def _moved_to(settings: JudgeSettings) -> str:
    """The name under which the store keeps that its verdicts are also those of the judge at this URL."""
    return f"judge {settings.model} moved to {settings.endpoint.base_url}"


def _listed_models(settings: JudgeSettings) -> list[str]:
    """The models that the endpoint lists, if it does. Raises `UserError` where nobody answers or the key is refused."""
    endpoint = settings.endpoint
    try:
        return _names(fetch(f"{endpoint.base_url}/models", endpoint.api_key(), seconds=min(SECONDS, settings.timeout)))
    except urllib.error.HTTPError as error:
        if error.code in (401, 403):
            key = f"the environment variable {endpoint.api_key_env}" if endpoint.api_key_env else "--judge-key-env (not given)"
            raise UserError(f"judge {endpoint.base_url}: refuses the key (HTTP {error.code}); check {key}") from None
        return []
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"judge {endpoint.base_url}: cannot be reached ({reason(error)}); check --judge-url") from None


def _names(reply: bytes) -> list[str]:
    """The names in a list of models, or nothing if this is none."""
    try:
        return [str(model["id"]) for model in json.loads(reply)["data"]]
    except (ValueError, KeyError, TypeError):
        return []
