"""Ray Data gives the records of the local engine; needs Ray, and half a minute to start it."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from asking import QUICK, echo, models, numbered, often

from fake_endpoint import FakeEndpoint, troubled
from ultrafuser.endpoints.budget import BudgetReached
from ultrafuser.endpoints.engine import LocalEngine
from ultrafuser.endpoints.ray import RayEngine
from ultrafuser.endpoints.store import AnswerStore
from ultrafuser.errors import UserError

pytestmark = pytest.mark.slow
PRICES = {"price_input": 1.0, "price_output": 1000.0}


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Two processors of this machine, for all tests."""
    ray = pytest.importorskip("ray")
    yield
    ray.shutdown()


def test_records_equal_those_of_the_local_engine(tmp_path, capfd):
    """Catches fields that are lost on the way from an actor, another order, requests asked twice, and Ray's chatter."""
    requests = [*numbered(40, step="one", max_tokens=10), *numbered(30, start=40, step="two")]
    seen = []
    with FakeEndpoint(troubled(echo, share=0.3)) as server:
        with AnswerStore(tmp_path / "local.sqlite") as local:
            expected = LocalEngine(models(server, **PRICES), local, patience=QUICK).answer(requests)
            totals = local.totals()
        server.log.clear()
        with AnswerStore(tmp_path / "ray.sqlite") as store:
            engine = RayEngine(models(server, **PRICES), store, actors=2, block=16, patience=QUICK, progress=seen.append)
            first = engine.answer(requests[:20])
            answers = engine.answer(requests)
            kept = store.get_many([request.key for request in requests])
            assert store.totals() == totals
    assert [replace(answer, seconds=0) for answer in answers] == [replace(answer, seconds=0) for answer in expected]
    assert answers[:20] == first and list(map(kept.get, (request.key for request in requests))) == answers
    assert set(often(server.answered).values()) == {1}
    assert (seen[-1].done, seen[-1].total, seen[-1].from_store) == (70, 70, 20)
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert "".join(capfd.readouterr()) == ""


def test_the_cap_and_the_users_mistakes_are_the_same(tmp_path):
    """Catches a cap that is passed, Ray's tracebacks instead of one line, and answers lost with an actor that stops."""
    with FakeEndpoint(echo) as server, AnswerStore(tmp_path / "a.sqlite") as store:
        with pytest.raises(BudgetReached, match="larger budget"):
            RayEngine(models(server, **PRICES), store, budget=0.05, actors=2, block=4).answer(numbered(60, max_tokens=5))
        assert 0.04 < store.spent() <= 0.05
        assert store.totals()["asking"].answers == len(server.requests) == len(often(server.requests))
        with pytest.raises(UserError, match=r"gone.*404") as error:
            RayEngine(models(server, model="gone"), store, actors=2).answer(numbered(5, start=100))
        assert "\n" not in str(error.value)
        with pytest.raises(UserError, match="NO_SUCH_KEY"):
            RayEngine(models(server, api_key_env="NO_SUCH_KEY"), store, actors=2).answer(numbered(5, start=100))
