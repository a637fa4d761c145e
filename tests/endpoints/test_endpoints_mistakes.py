"""Bad input and bad endpoints: one clear line, nothing lost, no secret shown, and the same call goes on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from asking import QUICK, echo, echoes, models, numbered, prompt, question
from pydantic import ValidationError

from fake_endpoint import FakeEndpoint, Reply
from ultrafuser.endpoints.engine import LocalEngine
from ultrafuser.endpoints.models import Endpoint, Model
from ultrafuser.endpoints.progress import Progress
from ultrafuser.endpoints.store import AnswerStore
from ultrafuser.errors import UserError

SECRET = "sk-very-secret-1234567890"
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


@pytest.fixture
def store(tmp_path: Path):
    with AnswerStore(tmp_path / "answers.sqlite") as store:
        yield store


def one_line(error: pytest.ExceptionInfo[UserError], *words: str) -> str:
    text = str(error.value)
    assert "\n" not in text and all(word in text for word in words), text
    return text


def test_a_wrong_key_costs_one_request_and_is_never_shown(store, monkeypatch, tmp_path, capfd):
    """Catches 200 requests with a wrong key, a line that does not name the variable, and the key in an error, log or store."""
    monkeypatch.setenv("MY_KEY", SECRET)
    notes: list[Progress] = []
    with FakeEndpoint(echo, api_key="another") as server:  # its message repeats the key, as careless servers do
        engine = LocalEngine(models(server, api_key_env="MY_KEY"), store, progress=notes.append)
        with pytest.raises(UserError) as error:
            engine.answer(numbered(50))
    one_line(error, server.base_url, "401", "MY_KEY")
    assert len(server.requests) == 1
    seen = repr([error.value, error.value.__cause__, error.value.__context__, engine.pools["m"].lines, notes]) + "".join(
        capfd.readouterr()
    )
    kept = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert SECRET not in seen and SECRET.encode() not in kept


def test_the_key_is_sent_and_a_missing_variable_is_named(store, monkeypatch):
    """Catches a key that is not sent, and a missing one that is only noticed by the server."""
    with FakeEndpoint(echo, api_key=SECRET) as server:
        monkeypatch.setenv("MY_KEY", f" {SECRET}\n")
        assert len(LocalEngine(models(server, api_key_env="MY_KEY"), store).answer(numbered(3))) == 3
        monkeypatch.setenv("MY_KEY", "sk-“quoted”")
        with pytest.raises(UserError) as error:
            LocalEngine(models(server, api_key_env="MY_KEY"), store)
        assert "quoted" not in one_line(error, "MY_KEY")
        monkeypatch.delenv("MY_KEY")
        with pytest.raises(UserError) as error:
            LocalEngine(models(server, api_key_env="MY_KEY"), store)
        one_line(error, "MY_KEY", server.base_url)
        with pytest.raises(UserError) as error:
            LocalEngine(models(server), store).answer(numbered(4))
        one_line(error, "api_key_env", "401")


def test_unknown_models_are_named(store):
    """Catches a request for a model that is not in the recipe, or that the endpoint does not have, ending in a traceback."""
    with FakeEndpoint(echo) as server:
        with pytest.raises(UserError) as error:
            LocalEngine(models(server), store).answer(numbered(1, model="n"))
        one_line(error, "'n'", "one of m")
        with pytest.raises(UserError) as error:
            LocalEngine(models(server, model="gone"), store).answer(numbered(20))
        one_line(error, "gone", "404", server.base_url)
    assert len(server.requests) == 1


def test_down_at_the_start_then_the_same_call_works(store):
    """Catches a traceback or a hang when nothing listens, and requests that are lost."""
    server = FakeEndpoint(echo).start()
    server.stop()
    engine = LocalEngine(models(server), store, patience=QUICK)
    with pytest.raises(UserError) as error:
        engine.answer(numbered(20))
    one_line(error, server.base_url, "cannot be reached")
    assert store.totals()["asking"].requests == 20
    with server:
        assert [answer.text for answer in engine.answer(numbered(20))] == echoes(20)


def test_down_halfway_keeps_what_came_and_goes_on(store):
    """Catches answers that are lost when the endpoint dies, or asked again afterwards."""
    server = FakeEndpoint(echo, latency=0.01).start()

    def watch(progress: Progress) -> None:
        if progress.done >= 5 and not stopped:
            stopped.append(True)
            server.stop()

    stopped: list[bool] = []
    with pytest.raises(UserError) as error:
        LocalEngine(models(server, max_concurrency=2), store, patience=QUICK, progress=watch).answer(numbered(120))
    one_line(error, server.base_url)
    kept = store.get_many([request.key for request in numbered(120)])
    assert 5 <= len(kept) < 120
    with server:
        before = len(server.requests)
        answers = LocalEngine(models(server), store, patience=QUICK).answer(numbered(120))
    assert [answer.text for answer in answers] == echoes(120)
    assert len(server.requests) - before == 120 - len(kept)


def test_one_bad_request_spoils_nothing_and_is_not_final(store):
    """Catches a run that dies of one prompt that is too long, and an error kept as an answer."""
    long = prompt("word " * 500)
    with FakeEndpoint(echo, context=100) as server:
        engine = LocalEngine(models(server), store)
        answers = engine.answer([long, *numbered(10)])
        assert answers[0].failed and answers[0].text == "" and "maximum context length" in answers[0].finish_reason
        assert [answer.text for answer in answers[1:]] == echoes(10)
        assert [failure[:2] for failure in store.failures()] == [(long.key, answers[0].finish_reason)]
        server.context = None
        assert not engine.answer([long])[0].failed


def test_a_request_that_always_fails_is_given_up_alone(store):
    """Catches one poisoned request being taken for a dead endpoint, which would end every run at the same place."""
    script = lambda body, n: Reply(status=500) if question(body) == "question 3" else Reply(echo(body, n), delay=0.02)  # noqa: E731
    with FakeEndpoint(script) as server:
        answers = LocalEngine(models(server, max_concurrency=2), store, patience=QUICK).answer(numbered(60))
    assert answers[3].failed and re.search("HTTP 500.*6 times", answers[3].finish_reason)
    assert [answer.text for n, answer in enumerate(answers) if n != 3] == [text for n, text in enumerate(echoes(60)) if n != 3]


def test_an_endpoint_that_refuses_everything_is_a_mistake(store):
    """Catches 300,000 requests with a setting that the endpoint does not take, each an error of its own."""
    with FakeEndpoint(lambda body, n: Reply("temperature must be 1.", 400)) as server, pytest.raises(UserError) as error:
        LocalEngine(models(server), store).answer(numbered(200))
    one_line(error, "refuses every request", "temperature must be 1.")
    assert len(server.requests) <= 25


def test_an_empty_account_hands_over_or_says_so(store):
    """Catches retries on a 429 that waiting cannot mend."""
    script = lambda body, n: Reply("You exceeded your current quota.", 429, code="insufficient_quota")  # noqa: E731
    with FakeEndpoint(script) as empty, FakeEndpoint(echo) as server:
        answers = LocalEngine(models(empty, server), store, patience=QUICK).answer(numbered(30))
        assert [answer.text for answer in answers] == echoes(30)
        with pytest.raises(UserError) as error:
            LocalEngine(models(empty), store, patience=QUICK).answer(numbered(5, start=50))
    one_line(error, "quota", "account")
    assert len(empty.requests) == 2


def test_an_endless_429_ends(store):
    """Catches a run that waits for ever, and one that waits for hours without a word."""
    for headers, word in (({}, "slow down"), ({"retry-after": "36000"}, "36,000 s")):
        server = FakeEndpoint(lambda body, n, headers=headers: Reply("slow down", 429, headers))
        with server, pytest.raises(UserError) as error:
            LocalEngine(models(server), store, patience=QUICK).answer(numbered(20))
        one_line(error, "rate limit", word)


def test_moderation_is_not_a_wrong_key(store):
    """Catches a 403 for one flagged prompt that ends the run."""
    script = lambda body, n: Reply("flagged", 403) if question(body) == "question 5" else echo(body, n)  # noqa: E731
    with FakeEndpoint(script) as server:
        answers = LocalEngine(models(server), store).answer(numbered(10))
    assert [n for n, answer in enumerate(answers) if answer.failed] == [5]


def test_structured_output_is_sent_and_left_out_where_it_is_refused(store):
    """Catches schemas that never reach the endpoint, a refusal that ends the run, and one that is asked for again and again."""
    requests = numbered(30, schema=SCHEMA)
    with FakeEndpoint(echo) as has, FakeEndpoint(echo, structured_output=False) as lacks:
        LocalEngine(models(has), store).answer(requests[:5])
        assert has.requests[0]["response_format"]["json_schema"]["schema"] == SCHEMA
        assert has.requests[0]["response_format"]["type"] == "json_schema"
        engine = LocalEngine(models(lacks), store)
        assert [answer.text for answer in engine.answer(requests)] == echoes(30)
        assert lacks.counts == {"400": 1, "200": 25}
        engine.answer(numbered(5, start=30, schema=SCHEMA))
        assert lacks.counts["400"] == 1
        LocalEngine(models(lacks, structured_output="off"), store).answer(numbered(5, start=40, schema=SCHEMA))
        assert lacks.counts["400"] == 1
        answer = LocalEngine(models(lacks, structured_output="on"), store).answer(numbered(1, start=50, schema=SCHEMA))[0]
        assert answer.failed and "response_format" in answer.finish_reason


def test_a_refusal_with_and_without_schema_is_the_requests_fault(store):
    """Catches structured output being given up because one prompt was too long."""
    requests = [
        *numbered(3, schema=SCHEMA),
        numbered(1)[0].__class__("m", ({"role": "user", "content": "x " * 200},), schema=SCHEMA),
    ]
    with FakeEndpoint(echo, context=100) as server:
        engine = LocalEngine(models(server), store)
        assert [answer.failed for answer in engine.answer(requests)] == [False, False, False, True]
        engine.answer(numbered(1, start=9, schema=SCHEMA))
    assert "response_format" in server.requests[-1]


def test_the_newer_name_of_the_length_is_learned(store):
    """Catches endpoints whose newest models take only max_completion_tokens."""

    def script(body, n):
        text = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        return Reply(text, 400) if "max_tokens" in body else echo(body, n)

    with FakeEndpoint(script) as server:
        answers = LocalEngine(models(server), store).answer(numbered(10, max_tokens=20, schema=SCHEMA))
    assert [answer.text for answer in answers] == echoes(10)
    assert server.counts == {"400": 1, "200": 10}
    assert server.requests[-1]["max_completion_tokens"] == 20 and "response_format" in server.requests[-1]


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("temperature", "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is."),
        ("seed", 'Invalid JSON payload received. Unknown name "seed": Cannot find field.'),
    ],
)
def test_a_refused_field_of_the_sampling_is_left_out(store, field, text):
    """Catches reasoning models that take no temperature, servers without seeds, and a schema lost with what was refused."""
    fields = {"temperature": 0.0, "seed": 3, "schema": SCHEMA}
    with FakeEndpoint(lambda body, n: Reply(text, 400) if field in body else echo(body, n)) as server:
        answers = LocalEngine(models(server, structured_output="on"), store).answer(numbered(10, **fields))
    assert [answer.text for answer in answers] == echoes(10)
    assert server.counts == {"400": 1, "200": 10}
    kept = {"temperature", "seed", "response_format"} - {field}
    assert kept <= server.requests[-1].keys() and field not in server.requests[-1]


def test_a_wrong_value_is_not_a_refused_field(store):
    """Catches a temperature out of bounds that is silently not used."""
    script = lambda body, n: Reply("temperature must be at most 2", 400)  # noqa: E731
    with FakeEndpoint(script) as server:
        answer = LocalEngine(models(server), store).answer(numbered(1, temperature=9.0))[0]
    assert answer.failed and "at most 2" in answer.finish_reason and server.counts == {"400": 1}


def test_odd_replies_are_read(store):
    """Catches a missing count of tokens (and so of costs), a refusal field, an empty text and half a surrogate pair."""
    replies = {
        "question 0": Reply("one two three", usage=False),
        "question 1": Reply("", finish_reason="content_filter"),
        "question 2": Reply("half \ud83d here\0", finish_reason="length"),
        "question 3": Reply(raw='{"choices": [{"message": {"content": null, "refusal": "I cannot."}, "finish_reason": null}]}'),
    }
    with FakeEndpoint(lambda body, n: replies[question(body)]) as server:
        answers = LocalEngine(models(server, price_output=1e6), store).answer(numbered(4))
    assert [answer.text for answer in answers] == ["one two three", "", "half \ufffd here\0", "I cannot."]
    assert [answer.finish_reason for answer in answers] == ["stop", "content_filter", "length", "stop"]
    assert 3 <= answers[0].completion_tokens <= 6 and answers[0].cost == answers[0].completion_tokens
    assert store.get_many([request.key for request in numbered(4)]) == {answer.key: answer for answer in answers}


def test_a_fault_in_keeping_answers_ends_the_run(store, monkeypatch):
    """Catches an error inside the event loop that leaves the run waiting for ever, and one that is swallowed."""

    def full(answers):
        raise UserError("answers.sqlite: the disk is full")

    with FakeEndpoint(echo, latency=0.01) as server:
        engine = LocalEngine(models(server, max_concurrency=2), store)
        monkeypatch.setattr(store, "add_answers", full)
        with pytest.raises(UserError, match="disk is full"):
            engine.answer(numbered(50))
    assert len(server.requests) <= 3


@pytest.mark.parametrize(
    "fields",
    [
        {"base_url": "localhost:8000"},
        {"base_url": "https://user:secret@host/v1"},
        {"weight": 0},
        {"max_concurrency": 0},
        {"timeout_seconds": 0},
        {"price_input": -1},
        {"structured_output": "maybe"},
        {"api_key": "sk-1"},
    ],
)
def test_a_recipe_cannot_say_nonsense(fields):
    """Catches settings that fail only when the run has begun, and a key written into a file."""
    with pytest.raises(ValidationError):
        Endpoint(**{"base_url": "http://localhost:8000/v1", "model": "x", **fields})
    with pytest.raises(ValidationError):
        Model(endpoints=())
