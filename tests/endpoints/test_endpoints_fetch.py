"""Single requests: what goes out, and that a key stays where it belongs."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from ultrafuser.endpoints.fetch import fetch, reason

Seen = list[tuple[str, str, str | None, str]]  # method, path, key, body


@contextmanager
def server(status: int, **headers: str) -> Iterator[tuple[str, Seen]]:
    """A server that answers everything alike and remembers what it was asked."""
    seen: Seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
            seen.append((self.command, self.path, self.headers.get("authorization"), body))
            self.send_response(status)
            for name, value in ({"content-length": "2"} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"ok")

        do_POST = do_GET

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}", seen
        listening.shutdown()


def test_what_goes_out() -> None:
    """A body is sent where none is meant, or as something else than JSON; a key is sent where there is none."""
    with server(200) as (url, seen):
        assert fetch(f"{url}/models", None, seconds=60) == b"ok"
        assert fetch(f"{url}/embeddings", "secret", body={"input": ["é"]}, seconds=60) == b"ok"
    assert seen == [("GET", "/models", None, ""), ("POST", "/embeddings", "Bearer secret", json.dumps({"input": ["é"]}))]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("body", [None, {"input": ["text"]}])
def test_a_key_does_not_follow_a_redirect(status: int, body: object) -> None:
    """An endpoint, or who has taken its place, sends the key on to another server."""
    with (
        server(200) as (elsewhere, seen),
        server(status, location=f"{elsewhere}/models") as (url, asked),
        pytest.raises(urllib.error.HTTPError, match=str(status)),
    ):
        fetch(url, "secret", body=body, seconds=60)
    assert len(asked) == 1 and not seen


def test_what_went_wrong_is_told() -> None:
    """Nobody there, and a reply that breaks off, are an empty reason or an error of another kind than is said."""
    with pytest.raises(OSError) as refused:
        fetch("http://127.0.0.1:9/models", None, seconds=60)
    assert reason(refused.value) == "Connection refused"
    with server(200, **{"content-length": "99"}) as (url, _), pytest.raises(http.client.HTTPException) as broken:
        fetch(url, None, seconds=60)
    assert "IncompleteRead" in reason(broken.value)
    assert reason(urllib.error.URLError(TimeoutError())) == "no answer in time"
