"""The local engine against a real server: order, retries, limits, weights, resuming, spending."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from asking import QUICK, echo, echoes, models, numbered, often, question

from fake_endpoint import FakeEndpoint, Reply, troubled
from ultrafuser.endpoints.budget import BudgetReached
from ultrafuser.endpoints.engine import LocalEngine
from ultrafuser.endpoints.line import Patience
from ultrafuser.endpoints.models import Endpoint, Model
from ultrafuser.endpoints.pool import Pool
from ultrafuser.endpoints.progress import Progress
from ultrafuser.endpoints.request import ChatRequest
from ultrafuser.endpoints.store import AnswerStore, Totals


@pytest.fixture
def store(tmp_path: Path):
    with AnswerStore(tmp_path / "answers.sqlite") as store:
        yield store


def test_answers_come_in_the_order_of_the_requests(store):
    """Catches answers in the order of arrival, and a request that stands there twice being bought twice."""
    requests = numbered(40)
    shuffled = requests[::-2] + requests + requests[:5]
    script = lambda body, n: Reply(echo(body, n), delay=0.01 * (hash(question(body)) % 3))  # noqa: E731
    with FakeEndpoint(script) as server:
        answers = LocalEngine(models(server), store).answer(shuffled)
    assert [answer.text for answer in answers] == [f"answer to {request.messages[0]['content']}" for request in shuffled]
    assert [answer.key for answer in answers] == [request.key for request in shuffled]
    assert set(often(server.requests).values()) == {1}


def test_what_the_store_has_is_not_asked_again(store):
    """Catches answers that are kept but not found again, or found by step or order instead of content."""
    with FakeEndpoint(echo) as server:
        first = LocalEngine(models(server), store).answer(numbered(10))
        again = LocalEngine(models(server), store).answer(numbered(15, step="another")[::-1])
    assert again[::-1][:10] == first
    assert often(server.requests) == {f"question {n}": 1 for n in range(15)}


def test_another_attempt_is_asked_anew(store):
    """Catches `attempt`, seed, sampling or schema being left out of the key."""
    variants = [
        {},
        {"attempt": 1},
        {"seed": 1},
        {"temperature": 0.5},
        {"max_tokens": 9},
        {"top_p": 0.5},
        {"schema": {"type": "object"}},
    ]
    with FakeEndpoint(echo) as server:
        engine = LocalEngine(models(server), store)
        engine.answer([numbered(1, **fields)[0] for fields in variants])
    assert len(server.requests) == len(variants)
    assert [body for body in server.requests if "attempt" in body] == []


def test_sampling_is_the_requests_or_else_the_models(store):
    """Catches a request's 0 taken for "not given", and settings of the model that never reach the endpoint."""
    with FakeEndpoint(echo) as server:
        endpoint = Endpoint(base_url=server.base_url, model="fake")
        model = Model(endpoints=(endpoint,), temperature=0.7, top_p=0.9, max_tokens=50)
        LocalEngine({"m": model}, store).answer([*numbered(1, temperature=0.0, max_tokens=7, seed=3), *numbered(1)])
    sent = {body.get("seed"): {key: body.get(key) for key in ("temperature", "top_p", "max_tokens")} for body in server.requests}
    assert sent == {
        3: {"temperature": 0.0, "top_p": 0.9, "max_tokens": 7},
        None: {"temperature": 0.7, "top_p": 0.9, "max_tokens": 50},
    }


def test_trouble_is_retried_and_nothing_answered_is_asked_twice(store):
    """Catches a kind of failure that is not retried, and a retry after an answer."""
    kinds = ("429", "500", "503", "cut", "garbage")
    with FakeEndpoint(troubled(echo, share=0.5, kinds=kinds)) as server:
        answers = LocalEngine(models(server), store, patience=QUICK).answer(numbered(80))
    assert [answer.text for answer in answers] == echoes(80)
    assert all(server.counts[kind] for kind in ("429", "500", "503", "cut")), server.counts
    good = [
        body for exchange, body in zip(server.log, server.requests, strict=True) if exchange.answered and not exchange.reply.raw
    ]
    assert set(often(good).values()) == {1}


def test_a_stalled_request_times_out_and_is_asked_again(store):
    """Catches a request without time limit."""
    with FakeEndpoint(troubled(echo, share=0.3, kinds=("stall",))) as server:
        answers = LocalEngine(models(server, timeout_seconds=1.0), store, patience=QUICK).answer(numbered(20))
    assert [answer.text for answer in answers] == echoes(20)
    assert server.counts["stall"] > 0


def test_concurrency_is_bounded_per_endpoint_and_overall(store):
    """Catches limits that are exceeded, and ones that are never reached."""
    with FakeEndpoint(echo, latency=0.2) as one, FakeEndpoint(echo, latency=0.2) as two:
        LocalEngine(models(one, two, max_concurrency=4), store).answer(numbered(24))
        assert (one.most_in_flight, two.most_in_flight) == (4, 4)
        one.most_in_flight = 0
        LocalEngine(models(one, max_concurrency=8), store, concurrency=3).answer(numbered(9, start=100))
        assert one.most_in_flight == 3


def test_shares_follow_the_weights(store):
    """Catches weights that are ignored."""
    with FakeEndpoint(echo) as big, FakeEndpoint(echo) as small:
        endpoints = (
            Endpoint(base_url=big.base_url, model="fake", weight=3),
            Endpoint(base_url=small.base_url, model="fake", weight=1),
        )
        model = Model(endpoints=endpoints)
        LocalEngine({"m": model}, store, concurrency=8).answer(numbered(200))
    # On a busy machine a connection may fail, and its endpoint's share goes to the other for a while.
    assert len(small.requests) < len(big.requests) < 200 and len(big.requests) + len(small.requests) >= 200
    pool = Pool(model, Patience())
    pool.begin(numbered(200))
    chosen = [pool.choose(job, now=0.0) for job in pool.fresh]
    assert [chosen[:20].count(line) for line in pool.lines] == [15, 5]
    assert [chosen.count(line) for line in pool.lines] == [150, 50]


# A request that is held up comes into another window than it was meant for, and may be refused: a machine that stands still for
# a moment spoils one trial. Limits that are not waited for spoil all.
TRIALS = range(0, 500, 100)
FEW = 2


def test_rate_limits_are_waited_for_not_run_into(store):
    """Catches headers that are not read: the server counts what it has to refuse."""

    def refused(first: int) -> int:
        with FakeEndpoint(echo, requests_per_window=20, window=0.4, latency=0.01) as server:
            start = time.monotonic()
            answers = LocalEngine(models(server), store).answer(numbered(40, start=first))
        assert [answer.text for answer in answers] == echoes(40, start=first)
        assert time.monotonic() - start >= 0.4
        return server.counts["429"]

    assert sum(refused(first) <= FEW for first in TRIALS) > len(TRIALS) / 2


def test_token_limits_are_waited_for(store):
    """Catches a limit on tokens that is not kept while there are requests left."""

    def refused(first: int) -> int:
        with FakeEndpoint(echo, tokens_per_window=600, window=0.4) as server:
            answers = LocalEngine(models(server), store).answer(numbered(25, start=first, max_tokens=40))
        assert [answer.text for answer in answers] == echoes(25, start=first)
        return server.counts["429"]

    assert sum(refused(first) <= FEW for first in TRIALS) > len(TRIALS) / 2


def test_a_429_holds_the_endpoint_for_as_long_as_it_asks(store):
    """Catches requests that keep being sent during retry-after, and a 429 that counts as a try."""
    opens_at = time.monotonic() + 0.4

    def script(body, n):
        wait = opens_at - time.monotonic()
        return Reply("slow down", 429, {"retry-after": f"{wait:.3f}"}) if wait > 0 else echo(body, n)

    with FakeEndpoint(script) as server:
        answers = LocalEngine(models(server), store, patience=QUICK).answer(numbered(30))
    assert [answer.text for answer in answers] == echoes(30)
    assert server.counts["429"] <= 3


def test_an_endpoint_that_is_down_hands_its_share_on(store):
    """Catches requests that stay with a dead endpoint; and one that is not asked again when it is back."""
    gone = FakeEndpoint(echo).start()
    gone.stop()
    gone.latency = 0.05
    with FakeEndpoint(echo, latency=0.05) as server:
        answers = LocalEngine(models(gone, server), store, patience=QUICK).answer(numbered(30))
        assert [answer.text for answer in answers] == echoes(30)
        with gone:
            engine = LocalEngine(models(gone, server, max_concurrency=2), store, patience=QUICK)
            engine.answer(numbered(30, start=100))
    assert len(gone.requests) >= 4


def test_an_endpoint_that_goes_down_halfway_hands_its_share_on(store):
    """Catches answers lost with the connection, and a run that ends although another endpoint is up."""
    with FakeEndpoint(echo, latency=0.01) as stays, FakeEndpoint(echo, latency=0.01) as goes:

        def watch(progress: Progress) -> None:
            if progress.done >= 20 and not stopped:
                stopped.append(True)
                goes.stop()

        stopped: list[bool] = []
        engine = LocalEngine(models(stays, goes, max_concurrency=2), store, patience=QUICK, progress=watch)
        answers = engine.answer(numbered(150))
        goes.start()
    assert stopped
    assert [answer.text for answer in answers] == echoes(150)


def test_the_cap_holds_and_a_larger_one_goes_on(store):
    """Catches a cap that is passed because what is on its way is not counted, and answers lost or bought again at the cap."""
    prices = {"price_input": 0.0, "price_output": 1000.0}  # 3 or 4 words of an answer cost 0.001 each
    with FakeEndpoint(lambda body, n: Reply("one two three four", delay=0.01)) as server:
        requests = numbered(50, max_tokens=10)
        with pytest.raises(BudgetReached, match=r"spending cap of \$0\.10 .* larger budget") as error:
            LocalEngine(models(server, **prices), store, budget=0.1).answer(requests)
        assert "\n" not in str(error.value)
        spent = store.spent()
        assert 0.1 - 0.01 < spent <= 0.1
        assert spent == pytest.approx(0.004 * len(server.requests))
        with pytest.raises(BudgetReached):  # the store's earlier spending counts
            LocalEngine(models(server, **prices), store, budget=0.1).answer(requests)
        assert len(LocalEngine(models(server, **prices), store, budget=1.0).answer(requests)) == 50
    assert set(often(server.requests).values()) == {1}
    assert store.totals() == {"asking": Totals(50, 50, 100, 200, pytest.approx(0.2))}


def test_a_cap_does_not_stop_what_is_free(store):
    """Catches a cap of 0 that forbids local models."""
    with FakeEndpoint(echo) as server:
        assert len(LocalEngine(models(server), store, budget=0.0).answer(numbered(3))) == 3


def test_ctrl_c_keeps_what_is_on_its_way(store):
    """Catches paid answers that are dropped on Ctrl-C, and a stop that does not come."""
    with FakeEndpoint(echo, latency=0.05) as server:

        def press(progress: Progress) -> None:
            if progress.done and not pressed:
                pressed.append(progress.in_flight)
                os.kill(os.getpid(), signal.SIGINT)

        pressed: list[int] = []
        engine = LocalEngine(models(server, max_concurrency=4), store, progress=press)
        with pytest.raises(KeyboardInterrupt):
            engine.answer(numbered(400))
        assert 0 < len(server.requests) < 400
        assert len(store.get_many([request.key for request in numbered(400)])) == len(server.answered) == len(server.requests)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_does_not_wait(store):
    """Catches a stop that hangs on an endpoint that never answers."""
    with FakeEndpoint(lambda body, n: Reply(stall=True)) as server:
        engine = LocalEngine(models(server), store, progress=lambda progress: os.kill(os.getpid(), signal.SIGINT))
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            engine.answer(numbered(3))
    assert time.monotonic() - start < 60  # the time limit of a request is twice that


def test_works_inside_a_running_loop_and_in_a_thread(store):
    """Catches "asyncio.run() cannot be called from a running event loop", as in notebooks."""

    async def notebook() -> list:
        return LocalEngine(models(server), store).answer(numbered(3))

    with FakeEndpoint(echo) as server:
        assert [answer.text for answer in asyncio.run(notebook())] == echoes(3)
        answers: list = []
        thread = threading.Thread(target=lambda: answers.extend(LocalEngine(models(server), store).answer(numbered(3, start=3))))
        thread.start()
        thread.join()
        assert [answer.text for answer in answers] == echoes(3, start=3)


def test_several_models_are_asked_side_by_side(store):
    """Catches a model whose endpoint is slow holding up the others, and requests that go to the wrong model."""
    all_fast = threading.Event()

    def fast_script(body, n):
        if len(fast.log) == 2:  # the third is asked
            all_fast.set()
        return "fast"

    slow = FakeEndpoint(lambda body, n: "slow" if all_fast.wait(60) else "alone")
    with slow, FakeEndpoint(fast_script) as fast:
        both = {"slow": models(slow, max_concurrency=1)["m"], "fast": models(fast)["m"]}
        requests = [ChatRequest(name, ({"role": "user", "content": f"{n}"},)) for name in both for n in range(3)]
        answers = LocalEngine(both, store, concurrency=2).answer(requests)
    assert [answer.text for answer in answers] == ["slow"] * 3 + ["fast"] * 3


def test_an_engine_is_not_asked_inside_a_transaction(store):
    """Catches answers that wait, uncommitted, for the end of somebody else's transaction."""
    with FakeEndpoint(echo) as server, pytest.raises(RuntimeError, match="transaction"), store.transaction():
        LocalEngine(models(server), store).answer(numbered(1))


def test_progress_counts_what_was_there_and_ends_at_all(store):
    """Catches counters that start at 0 on a resumed run or never reach the total."""
    seen: list[Progress] = []
    with FakeEndpoint(echo, latency=0.02) as server:
        LocalEngine(models(server), store).answer(numbered(10))
        LocalEngine(models(server, max_concurrency=4, price_output=1e6), store, progress=seen.append).answer(numbered(70))
    assert (seen[0].done, seen[0].from_store, seen[0].total) == (10, 10, 70)
    assert (seen[-1].done, seen[-1].from_store, seen[-1].total, seen[-1].step) == (70, 10, 70, "asking")
    assert [progress.done for progress in seen] == sorted(progress.done for progress in seen)
    assert seen[-1].cost == pytest.approx(store.spent()) and store.spent() == pytest.approx(60 * 4)
    assert max(progress.in_flight for progress in seen) == 4
