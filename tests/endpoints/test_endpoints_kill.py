"""Killed at any moment, the same call goes on: identical answers, and nothing that was answered is asked twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from asking import echo, echoes, numbered, often

from fake_endpoint import FakeEndpoint, Reply
from ultrafuser.endpoints.store import AnswerStore

COUNT = 400
IN_FLIGHT = 16
CLIENT = f"""
import sys
url, path, sys.argv[0] = sys.argv[1], sys.argv[2], "ultrafuser"  # as the command line, which does not load torch
from ultrafuser.endpoints.engine import LocalEngine
from ultrafuser.endpoints.models import Endpoint, Model
from ultrafuser.endpoints.store import AnswerStore
from asking import numbered
endpoint = Endpoint(base_url=url, model="fake", max_concurrency={IN_FLIGHT})
with AnswerStore(path) as store:
    LocalEngine(dict(m=Model(endpoints=(endpoint,))), store).answer(numbered({COUNT}))
"""


class Killer:
    """A script that answers like `echo`, and kills the client in the middle of its ``after``-th request from now."""

    def __init__(self, seed: int):
        self.draw, self.after, self.client = random.Random(seed), -1, 0

    def __call__(self, body, n):
        self.after -= 1
        if self.after == 0:
            os.kill(self.client, signal.SIGKILL)
        return Reply(echo(body, n), delay=self.draw.uniform(0.0, 0.03))


def run(server: FakeEndpoint, path: Path) -> subprocess.Popen:
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    return subprocess.Popen([sys.executable, "-c", CLIENT, server.base_url, str(path)], env={**os.environ, "PYTHONPATH": paths})


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments(tmp_path, kills):
    """Catches an answer that waits for others or for a clock before it is kept; one that is bought twice; and a store that a kill
    damages. Whatever has reached the server by the kill is kept by then or was on its way: an answer makes room for the next
    question only when it is kept.
    """
    path, killer, draw = tmp_path / "answers.sqlite", Killer(seed=kills), random.Random(kills)
    at_kills: list[tuple[int, set[str]]] = []  # requests seen so far, questions whose answers were kept
    with FakeEndpoint(killer) as server:
        for _ in range(kills):
            killer.after = draw.randint(1, 2 * COUNT // (3 * kills))
            with run(server, path) as client:
                killer.client = client.pid
                assert client.wait(300) == -signal.SIGKILL
            at_kills.append((len(server.log), kept_questions(path)))
            assert len(set(often(server.requests)) - at_kills[-1][1]) <= IN_FLIGHT
        with run(server, path) as client:
            assert client.wait(300) == 0
    for seen, kept in at_kills:
        assert not kept & set(often(server.requests[seen:]))
    with AnswerStore(path) as store:
        answers = store.get_many([request.key for request in numbered(COUNT)])
    assert [answers[request.key].text for request in numbered(COUNT)] == echoes(COUNT)
    assert len(server.requests) <= COUNT + kills * IN_FLIGHT  # at most what was on its way at each kill


def kept_questions(path: Path) -> set[str]:
    """The questions to which the store holds an answer."""
    requests = {request.key: request for request in numbered(COUNT)}
    with AnswerStore(path, read_only=True) as store:
        return {str(requests[key].messages[0]["content"]) for key in store.get_many(list(requests))}
