"""Asks one endpoint one request over HTTP.

With aiohttp, not the official openai client, which takes several times the processor time (docs/design.md): 500 requests a second
are to go out from less than one core. Tests check the protocol with the official client.
"""

from __future__ import annotations

import asyncio
import json
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from ultrafuser.endpoints.limits import Headers
from ultrafuser.endpoints.line import Line
from ultrafuser.endpoints.models import Model
from ultrafuser.endpoints.protocol import Completion, Failure, failure_of, read_completion, request_body
from ultrafuser.endpoints.request import ChatRequest
from ultrafuser.errors import UserError

try:
    import aiohttp
except ImportError:
    raise UserError("asking endpoints needs aiohttp: pip install 'ultrafuser[eval]' or 'ultrafuser[synth]'") from None

CONNECT_SECONDS = 30.0
Reply = tuple[Completion | Failure, Headers]


def new_session() -> aiohttp.ClientSession:
    """A pool of connections for all endpoints; how many are open at once is not its business."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


@lru_cache
def _proxy(url: str) -> str | None:
    """The proxy that the environment names for ``url``; aiohttp's own ``trust_env`` looks anew, in a thread, for each request."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


async def ask(session: aiohttp.ClientSession, line: Line, request: ChatRequest, settings: Model) -> Reply:
    """What the endpoint makes of ``request``, and the headers that came with it.

    Where it refuses structured output, or a field for the length or the sampling, it is asked again without; what went well is
    remembered.
    """
    dialect = line.dialect
    while True:
        body = request_body(request, settings, line.endpoint.model, dialect)
        result, headers = await _post(session, line, body, request)
        if isinstance(result, Completion):
            line.dialect = dialect
            return result, headers
        if result.status == 403 and line.proven:  # not the key, then, but what was asked: some gateways moderate
            result.kind = "request"
        simpler = dialect.learn(body, result)
        if simpler is None or (line.endpoint.structured_output == "on" and not simpler.structured):
            return result, headers
        dialect = simpler


async def _post(session: aiohttp.ClientSession, line: Line, body: dict[str, Any], request: ChatRequest) -> Reply:
    seconds = line.endpoint.timeout_seconds
    timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=min(seconds, CONNECT_SECONDS))
    sending = {"content-type": "application/json"} | ({"authorization": f"Bearer {line.key}"} if line.key else {})
    url = f"{line.endpoint.base_url}/chat/completions"
    options: dict[str, Any] = {"headers": sending, "timeout": timeout, "proxy": _proxy(url), "allow_redirects": False}
    headers: Headers = {}
    try:
        async with session.post(url, data=json.dumps(body).encode(), **options) as response:
            headers, raw = response.headers, await response.read()
        if response.status != 200:
            raise failure_of(response.status, headers, raw)
        return read_completion(raw, request), headers
    except Failure as failure:
        failure.message = failure.message.replace(line.key, "***") if line.key else failure.message
        return failure, headers
    except asyncio.TimeoutError:
        return Failure("transient", f"gave no whole answer within {seconds:g} s"), headers
    except OSError as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
        return Failure("transient", f"cannot be reached ({reason})"), headers
    except aiohttp.ClientError as error:
        return Failure("transient", f"broke the connection ({type(error).__name__})"), headers
