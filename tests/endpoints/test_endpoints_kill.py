"""Killed at any moment, the same call goes on: identical answers, and nothing that was answered is asked twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from asking import echo, echoes, numbered, often

from fake_endpoint import FakeEndpoint, Reply
from ultrafuser.endpoints.store import AnswerStore

COUNT = 400
ON_ITS_WAY = 0.25  # seconds; what left the server longer ago must have been read and kept, on a busy machine too
CLIENT = f"""
import sys
url, path, sys.argv[0] = sys.argv[1], sys.argv[2], "ultrafuser"  # as the command line, which does not load torch
from ultrafuser.endpoints.engine import LocalEngine
from ultrafuser.endpoints.models import Endpoint, Model
from ultrafuser.endpoints.store import AnswerStore
from asking import numbered
endpoint = Endpoint(base_url=url, model="fake", max_concurrency=16)
with AnswerStore(path) as store:
    LocalEngine(dict(m=Model(endpoints=(endpoint,))), store).answer(numbered({COUNT}))
"""


class Killer:
    """A script that answers like `echo`, and kills the client in the middle of its ``after``-th request from now."""

    def __init__(self, seed: int):
        self.draw, self.after, self.client, self.killed_at = random.Random(seed), -1, 0, 0.0

    def __call__(self, body, n):
        self.after -= 1
        if self.after == 0:
            os.kill(self.client, signal.SIGKILL)
            self.killed_at = time.monotonic()
        return Reply(echo(body, n), delay=self.draw.uniform(0.0, 0.03))


def run(server: FakeEndpoint, path: Path) -> subprocess.Popen:
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    return subprocess.Popen([sys.executable, "-c", CLIENT, server.base_url, str(path)], env={**os.environ, "PYTHONPATH": paths})


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments(tmp_path, kills):
    """Catches an answer that is handed out, or waits for others, before it is kept; and a store that a kill damages.

    "Answered" is what the store holds at the kill, and all that had left the server `ON_ITS_WAY` before.
    """
    path, killer, draw = tmp_path / "answers.sqlite", Killer(seed=kills), random.Random(kills)
    at_kills: list[tuple[int, set[str]]] = []  # requests seen so far, questions whose answers were kept
    with FakeEndpoint(killer) as server:
        for _ in range(kills):
            before, killer.after = len(server.log), draw.randint(1, 2 * COUNT // (3 * kills))
            with run(server, path) as client:
                killer.client = client.pid
                assert client.wait(60) == -signal.SIGKILL
            long_ago = killer.killed_at - ON_ITS_WAY
            left = [exchange.body for exchange in server.log[before:] if exchange.answered and exchange.finished < long_ago]
            at_kills.append((len(server.log), kept_questions(path)))
            assert set(often(left)) <= at_kills[-1][1]
        with run(server, path) as client:
            assert client.wait(60) == 0
    for seen, kept in at_kills:
        assert not kept & set(often(server.requests[seen:]))
    with AnswerStore(path) as store:
        answers = store.get_many([request.key for request in numbered(COUNT)])
    assert [answers[request.key].text for request in numbered(COUNT)] == echoes(COUNT)
    assert len(server.requests) <= COUNT + kills * 16  # at most what was on its way at each kill


def kept_questions(path: Path) -> set[str]:
    """The questions to which the store holds an answer."""
    requests = {request.key: request for request in numbered(COUNT)}
    with AnswerStore(path, read_only=True) as store:
        return {str(requests[key].messages[0]["content"]) for key in store.get_many(list(requests))}
