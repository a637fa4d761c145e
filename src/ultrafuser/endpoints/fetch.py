"""A single request to an endpoint, for what is asked once: which models it has, the vectors of a few texts. Batches of chat
requests go through `engine.py`."""

from __future__ import annotations

import json
import urllib.request
from typing import Any


def fetch(url: str, key: str | None, *, body: Any = None, seconds: float) -> bytes:
    """The reply to a GET, or to a POST of ``body`` as JSON; redirects are not followed, since the key must not travel.

    Raises OSError (its kind `urllib.error.HTTPError` for any status that is no success) and `http.client.HTTPException`.
    """
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    if body is not None:
        headers["Content-Type"] = "application/json"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers)
    with urllib.request.build_opener(_NoRedirect).open(request, timeout=seconds) as response:
        return bytes(response.read())


def reason(error: Exception) -> str:
    """What `fetch` raised, in a few words."""
    cause = getattr(error, "reason", error)  # urllib wraps what went wrong
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    return str(getattr(cause, "strerror", None) or cause or type(cause).__name__)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None
