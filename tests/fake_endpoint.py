"""A language model that is not one: a real HTTP server that speaks the OpenAI chat protocol, scripted and seeded.

    with FakeEndpoint(script=lambda body, n: Reply("Hello")) as server:
        ... server.base_url ...
    assert len(server.requests) == 1

It runs in a thread; ``python tests/fake_endpoint.py --latency 0.1`` runs it in a process of its own and prints its base URL,
until its standard input is closed.
A script says what to reply to a request: ``body`` is its JSON, ``n`` how many times this same body came before (so "fail the
first time" is ``n == 0``, whatever the order in which requests arrive). Without one it answers with a digest of the body.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Body = dict[str, Any]


@dataclass
class Reply:
    """What the server does with one request.

    ``text``: the answer, or the message of an error. ``status``: 200 or an error, whose ``code`` is the protocol's word for
    it. ``delay``: seconds before anything is sent. ``cut``: the connection breaks in the middle of the body. ``stall``: no
    answer ever. ``raw``: this body instead of the protocol's. ``usage``: False leaves the token counts out.
    """

    text: str = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: bool = False
    stall: bool = False
    finish_reason: str = "stop"
    code: str | None = None
    raw: str | None = None
    usage: bool = True


Script = Callable[[Body, int], "Reply | str"]


@dataclass
class Exchange:
    """One request that came in; ``finished`` is when the last byte of its reply had been handed to the network, if it was."""

    body: Body
    reply: Reply
    started: float
    finished: float | None = None

    @property
    def answered(self) -> bool:
        """Did a whole answer leave the server?"""
        return self.finished is not None and self.reply.status == 200


@dataclass
class FakeEndpoint:
    """The server, from ``with`` (or `start`) to its end (or `stop`); it can be started again on the same port.

    ``api_key``: any other gets 401. ``models``: others get 404. ``context``: longer prompts, in words, get 400.
    ``structured_output``: without it, response_format gets 400. ``requests_per_window``, ``tokens_per_window``: what is
    above them within ``window`` seconds gets 429 with retry-after; the headers say what remains.
    """

    script: Script | None = None
    seed: int = 0
    api_key: str | None = None
    models: tuple[str, ...] = ("fake",)
    latency: float = 0.0
    context: int | None = None
    structured_output: bool = True
    requests_per_window: int | None = None
    tokens_per_window: int | None = None
    window: float = 60.0
    port: int = 0
    log: list[Exchange] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0

    def __post_init__(self) -> None:
        self._seen: Counter[str] = Counter()
        self._window_start, self._used = 0.0, {"requests": 0, "tokens": 0}

    # -- what tests look at

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def requests(self) -> list[Body]:
        """The JSON of every chat request, in order of arrival."""
        return [exchange.body for exchange in self.log]

    @property
    def answered(self) -> list[Body]:
        """The JSON of every request to which a whole answer has left."""
        self._catch_up()
        return [exchange.body for exchange in self.log if exchange.answered]

    @property
    def counts(self) -> Counter[str]:
        """Replies by kind: "200", "429", .., "cut", "stall"."""
        replies = [exchange.reply for exchange in self.log]
        return Counter("cut" if reply.cut else "stall" if reply.stall else str(reply.status) for reply in replies)

    def _catch_up(self) -> None:
        """Let the server note what it has just sent: a client may have read an answer before that."""
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop).result(60)

    # -- starting and stopping

    def __enter__(self) -> FakeEndpoint:
        return self.start()

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> FakeEndpoint:
        ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve(ready)), daemon=True)
        self._thread.start()
        assert ready.wait(120), "the fake endpoint did not start"
        return self

    def stop(self) -> None:
        """Stop at once: open connections break."""
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(60)
        self._loop.close()

    async def _serve(self, ready: threading.Event) -> None:
        self._stopped = asyncio.Event()
        runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True, backlog=1024)
        await site.start()
        self.port = runner.addresses[0][1]
        ready.set()
        await self._stopped.wait()
        await runner.cleanup()

    def app(self) -> web.Application:
        app = web.Application(client_max_size=2**26)
        app.add_routes([web.get("/v1/models", self._list_models), web.post("/v1/chat/completions", self._chat)])
        return app

    # -- the protocol

    async def _list_models(self, request: web.Request) -> web.Response:
        if refusal := self._refused_key(request):
            return error_response(refusal)
        data = [{"id": name, "object": "model", "created": 0, "owned_by": "fake"} for name in self.models]
        return web.json_response({"object": "list", "data": data})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        exchange = Exchange(body, self._reply(request, body), time.monotonic())
        self.log.append(exchange)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            response = await self._send(request, body, exchange.reply)
            if request.transport and not request.transport.is_closing():
                exchange.finished = time.monotonic()
            return response
        except ConnectionError:  # the client has gone
            return web.Response(status=499)
        finally:
            self.in_flight -= 1

    def _reply(self, request: web.Request, body: Body) -> Reply:
        """What the server itself refuses, else what the script says."""
        times = self._seen[json.dumps(body, sort_keys=True)]
        self._seen[json.dumps(body, sort_keys=True)] += 1
        refusal = self._refused_key(request) or self._refused_body(body)
        refusal = refusal or self._refused_rate(body)
        if refusal:
            return refusal
        reply = self.script(body, times) if self.script else self.digest(body)
        reply = Reply(reply) if isinstance(reply, str) else reply
        reply.headers = {**self._rate_headers(), **reply.headers}
        return reply

    def digest(self, body: Body) -> str:
        """The answer without a script: the same for the same conversation and seed."""
        text = json.dumps([self.seed, body["messages"], body.get("seed")])
        return "answer " + hashlib.sha256(text.encode()).hexdigest()[:12]

    async def _send(self, request: web.Request, body: Body, reply: Reply) -> web.StreamResponse:
        if reply.stall:
            await self._stopped.wait()
        await asyncio.sleep(reply.delay + self.latency)
        if reply.status != 200:
            return await sent_whole(request, error_response(reply))
        if body.get("stream"):
            return await self._stream(request, body, reply)
        text = reply.raw if reply.raw is not None else json.dumps(completion(body, reply))
        if not reply.cut:
            return await sent_whole(request, web.Response(text=text, content_type="application/json", headers=reply.headers))
        response = web.StreamResponse(headers={"content-type": "application/json", "content-length": str(len(text.encode()))})
        await response.prepare(request)
        await response.write(text.encode()[: len(text) // 2])
        return drop(request, response)

    async def _stream(self, request: web.Request, body: Body, reply: Reply) -> web.StreamResponse:
        """Server-sent events, a word each; at last the finish reason, the counts if asked for, and [DONE]."""
        response = web.StreamResponse(headers={"content-type": "text/event-stream", **reply.headers})
        await response.prepare(request)
        words = [word for word in reply.text.replace(" ", "\0 ").split("\0") if word]
        deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in words)]
        for place, delta in enumerate(deltas):
            if reply.cut and place > len(deltas) // 2:
                return drop(request, response)
            await response.write(event(chunk(body, [{"index": 0, "delta": delta, "finish_reason": None}])))
        await response.write(event(chunk(body, [{"index": 0, "delta": {}, "finish_reason": reply.finish_reason}])))
        if (body.get("stream_options") or {}).get("include_usage"):
            await response.write(event({**chunk(body, []), "usage": usage(body, reply)}))
        await response.write(b"data: [DONE]\n\n")
        return response

    # -- what the server itself refuses

    def _refused_key(self, request: web.Request) -> Reply | None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.api_key is None or given == self.api_key:
            return None
        return Reply(f"Incorrect API key provided: {given}.", 401, code="invalid_api_key")

    def _refused_body(self, body: Body) -> Reply | None:
        if body.get("model") not in self.models:
            return Reply(f"The model `{body.get('model')}` does not exist.", 404, code="model_not_found")
        if self.context and prompt_tokens(body) > self.context:
            text = f"This model's maximum context length is {self.context} tokens, you requested {prompt_tokens(body)}."
            return Reply(text, 400, code="context_length_exceeded")
        if body.get("response_format") and not self.structured_output:
            return Reply("Unknown parameter: 'response_format'.", 400, code="unsupported_parameter")
        return None

    def _refused_rate(self, body: Body) -> Reply | None:
        if time.monotonic() - self._window_start >= self.window:
            self._window_start, self._used = time.monotonic(), {"requests": 0, "tokens": 0}
        wanted = {"requests": 1, "tokens": prompt_tokens(body) + (body.get("max_tokens") or 0)}
        limits = {"requests": self.requests_per_window, "tokens": self.tokens_per_window}
        if any(limit is not None and self._used[name] + wanted[name] > limit for name, limit in limits.items()):
            headers = {**self._rate_headers(), "retry-after": f"{self._until_reset():.3f}"}
            return Reply("Rate limit reached.", 429, headers, code="rate_limit_exceeded")
        for name, count in wanted.items():
            self._used[name] += count
        return None

    def _until_reset(self) -> float:
        return max(0.0, self._window_start + self.window - time.monotonic())

    def _rate_headers(self) -> dict[str, str]:
        headers = {}
        for name, limit in (("requests", self.requests_per_window), ("tokens", self.tokens_per_window)):
            if limit is not None:
                headers[f"x-ratelimit-limit-{name}"] = str(limit)
                headers[f"x-ratelimit-remaining-{name}"] = str(max(0, limit - self._used[name]))
                headers[f"x-ratelimit-reset-{name}"] = duration(self._until_reset())
        return headers


# -- pieces of the protocol


def prompt_tokens(body: Body) -> int:
    return sum(len(message["content"].split()) for message in body["messages"])


def usage(body: Body, reply: Reply) -> dict[str, int]:
    counts = {"prompt_tokens": prompt_tokens(body), "completion_tokens": len(reply.text.split())}
    return {**counts, "total_tokens": sum(counts.values())}


def completion(body: Body, reply: Reply) -> Body:
    message = {"role": "assistant", "content": reply.text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reply.finish_reason}
    whole = {"id": "chatcmpl-0", "object": "chat.completion", "created": 0, "model": f"{body['model']}-0001", "choices": [choice]}
    return {**whole, "usage": usage(body, reply)} if reply.usage else whole


def chunk(body: Body, choices: list[Body]) -> Body:
    head = {"id": "chatcmpl-0", "object": "chat.completion.chunk", "created": 0}
    return {**head, "model": f"{body['model']}-0001", "choices": choices}


def event(value: Body) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


def error_response(reply: Reply) -> web.Response:
    kind = "server_error" if reply.status >= 500 else "invalid_request_error"
    error = {"message": reply.text or "Something went wrong.", "type": kind, "param": None, "code": reply.code}
    text = reply.raw if reply.raw is not None else json.dumps({"error": error})
    return web.Response(text=text, status=reply.status, headers=reply.headers, content_type="application/json")


async def sent_whole(request: web.Request, response: web.Response) -> web.Response:
    """Send ``response`` now, so that what follows knows whether the client was still there."""
    await response.prepare(request)
    await response.write_eof()
    return response


def drop(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """Break the connection under a response that is not finished."""
    if request.transport:
        request.transport.abort()
    return response


def duration(seconds: float) -> str:
    """As OpenAI writes it: 6m0s, 1.5s, 20ms."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    return f"{int(seconds // 60)}m{seconds % 60:.3f}s" if seconds >= 60 else f"{seconds:.3f}s"


# -- ready-made misfortune

TROUBLE: dict[str, Callable[[], Reply]] = {
    "429": lambda: Reply("Rate limit reached.", 429, {"retry-after": "0.05"}, code="rate_limit_exceeded"),
    "500": lambda: Reply("The server had an error.", 500),
    "503": lambda: Reply("Overloaded.", 503),
    "cut": lambda: Reply("This will never arrive whole.", cut=True),
    "garbage": lambda: Reply(raw="<html>502 Bad Gateway</html>"),
    "stall": lambda: Reply(stall=True),
}


def troubled(script: Script, share: float, seed: int = 0, kinds: tuple[str, ...] = ("429", "500", "503", "cut")) -> Script:
    """``script``, but the first try of a ``share`` of all requests goes wrong; which and how follows from body and seed."""

    def wrapped(body: Body, n: int) -> Reply | str:
        draw = random.Random(f"{seed} {json.dumps(body, sort_keys=True)}")
        return TROUBLE[draw.choice(kinds)]() if n == 0 and draw.random() < share else script(body, n)

    return wrapped


SPOILED: dict[str, Callable[[str], str]] = {
    "prose": lambda text: f"Sure! Here is what you asked for:\n\n{text}\n\nLet me know if you need anything else.",
    "fence": lambda text: f"```json\n{text}\n```",
    "comma": lambda text: f"{text[:-1]},{text[-1:]}",
    "cut off": lambda text: text[: len(text) * 2 // 3],
    "refusal": lambda text: "I'm sorry, but as an AI language model I cannot help with that.",
    "empty": lambda text: "",
}


def spoiled(script: Script, share: float, seed: int = 0, kinds: tuple[str, ...] = ("prose", "fence", "comma")) -> Script:
    """``script``, but a ``share`` of its answers is written badly; which and how follows from body and seed."""

    def wrapped(body: Body, n: int) -> Reply | str:
        reply = script(body, n)
        reply = Reply(reply) if isinstance(reply, str) else reply
        draw = random.Random(f"spoil {seed} {json.dumps(body, sort_keys=True)}")
        if draw.random() < share:
            reply.text = SPOILED[draw.choice(kinds)](reply.text)
        return reply

    return wrapped


async def _serve_alone(latency: float, words: int) -> None:
    server = FakeEndpoint(lambda body, n: "word " * words if words else server.digest(body), latency=latency)
    ready = threading.Event()
    serving = asyncio.ensure_future(server._serve(ready))
    while not ready.is_set():
        await asyncio.sleep(0.01)
    print(server.base_url, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until whoever started it closes its input
    server._stopped.set()
    await serving


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--latency", type=float, default=0.1, help="seconds")
    options.add_argument("--words", type=int, default=0, help="length of the answers; 0: a digest of the request")
    arguments = options.parse_args()
    asyncio.run(_serve_alone(arguments.latency, arguments.words))
