"""The fake server itself, asked by the official client: what passes here is the protocol, not our idea of it."""

from __future__ import annotations

import time

import openai
import pytest
from asking import echo

import fake_endpoint
from fake_endpoint import TROUBLE, FakeEndpoint, Reply, spoiled, troubled

MESSAGES = [{"role": "user", "content": "question 1"}]


def client(server: FakeEndpoint, **fields) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.base_url, **{"api_key": "key", "max_retries": 0, "timeout": 60, **fields})


def test_an_answer_whole_and_in_pieces():
    """Catches a field of the protocol that is missing or misspelt, streaming or not."""
    with FakeEndpoint(lambda body, n: Reply("Two  words.\nAnd a line", finish_reason="length")) as server:
        ask = client(server).chat.completions.create
        whole = ask(model="fake", messages=MESSAGES)
        pieces = list(ask(model="fake", messages=MESSAGES, stream=True, stream_options={"include_usage": True}))
    assert whole.choices[0].message.content == "Two  words.\nAnd a line"
    assert (whole.choices[0].finish_reason, whole.usage.prompt_tokens, whole.usage.completion_tokens) == ("length", 2, 5)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices) == "Two  words.\nAnd a line"
    assert [piece.choices[0].finish_reason for piece in pieces if piece.choices][-2:] == [None, "length"]
    assert pieces[-1].usage == whole.usage
    assert len(pieces) > 5 and server.counts == {"200": 2}


def test_an_answer_that_has_come_is_counted_at_once(monkeypatch):
    """Catches a count that lags behind what the client knows, where the server's thread has to wait for its turn."""
    whole = fake_endpoint.sent_whole

    async def held_up(request, response):
        sent = await whole(request, response)
        time.sleep(0.3)
        return sent

    monkeypatch.setattr(fake_endpoint, "sent_whole", held_up)
    with FakeEndpoint(echo) as server:
        assert client(server).chat.completions.create(model="fake", messages=MESSAGES).choices[0].message.content
        assert len(server.answered) == 1


def test_models_and_limits():
    """Catches a list of models or headers that a client cannot read."""
    with FakeEndpoint(echo, models=("fake", "other"), requests_per_window=2, window=90) as server:
        assert [model.id for model in client(server).models.list()] == ["fake", "other"]
        raw = client(server).chat.completions.with_raw_response.create(model="other", messages=MESSAGES)
        assert (raw.headers["x-ratelimit-limit-requests"], raw.headers["x-ratelimit-remaining-requests"]) == ("2", "1")
        assert raw.headers["x-ratelimit-reset-requests"].startswith("1m")
        client(server).chat.completions.create(model="other", messages=MESSAGES)
        with pytest.raises(openai.RateLimitError) as error:
            client(server).chat.completions.create(model="other", messages=MESSAGES)
    assert 80 < float(error.value.response.headers["retry-after"]) <= 90 and error.value.code == "rate_limit_exceeded"


def test_errors_are_those_of_the_protocol():
    """Catches an error body that clients do not understand."""
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}}
    with FakeEndpoint(echo, api_key="key", context=50, structured_output=False) as server:
        ask = client(server).chat.completions.create
        with pytest.raises(openai.AuthenticationError) as error:
            client(server, api_key="wrong").chat.completions.create(model="fake", messages=MESSAGES)
        assert error.value.code == "invalid_api_key" and "Incorrect API key" in error.value.message
        with pytest.raises(openai.NotFoundError) as error:
            ask(model="none", messages=MESSAGES)
        assert error.value.code == "model_not_found"
        with pytest.raises(openai.BadRequestError) as error:
            ask(model="fake", messages=[{"role": "user", "content": "x " * 60}])
        assert error.value.code == "context_length_exceeded"
        with pytest.raises(openai.BadRequestError):
            ask(model="fake", messages=MESSAGES, response_format=schema)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("429", openai.RateLimitError),
        ("500", openai.InternalServerError),
        ("503", openai.InternalServerError),
        ("cut", openai.APIConnectionError),
        ("stall", openai.APITimeoutError),
    ],
)
def test_trouble_is_what_it_says(kind, error):
    """Catches trouble that is none, which would make tests of retries pass for nothing."""
    with FakeEndpoint(lambda body, n: TROUBLE[kind]() if n == 0 else echo(body, n)) as server:
        with pytest.raises(error):
            client(server, timeout=0.3 if kind == "stall" else 60).chat.completions.create(model="fake", messages=MESSAGES)
        assert client(server).chat.completions.create(model="fake", messages=MESSAGES).choices[0].message.content
    assert len(server.answered) == 1


def test_a_stream_that_is_cut_off_breaks():
    """Catches a cut that arrives as an ordinary end."""
    pieces = []
    with FakeEndpoint(lambda body, n: Reply("many words " * 10, cut=True)) as server, pytest.raises(openai.APIConnectionError):
        for piece in client(server).chat.completions.create(model="fake", messages=MESSAGES, stream=True):
            pieces.append(piece)
    assert len(pieces) > 5


def test_scripts_depend_on_body_and_seed_only():
    """Catches answers that depend on the order in which requests arrive."""
    script = spoiled(troubled(echo, share=0.5, seed=1), share=0.5, seed=1)
    bodies = [{"model": "fake", "messages": [{"role": "user", "content": f"question {n}"}]} for n in range(50)]
    one = [repr(script(body, 0)) for body in bodies]
    two = [repr(script(body, 0)) for body in reversed(bodies)][::-1]
    other = [repr(spoiled(troubled(echo, share=0.5, seed=2), share=0.5, seed=2)(body, 0)) for body in bodies]
    assert one == two != other
    assert 10 < sum("status=200" not in reply or "cut=True" in reply for reply in one) < 40
