"""Killed at any moment, the same command goes on to the same data, and nothing that was answered is asked twice."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from synth_world import Writer, domains, make_recipe, run, tables, write_recipe

from fake_endpoint import Body, FakeEndpoint, Reply
from ultrafuser.endpoints.store import AnswerStore
from ultrafuser.synth.recipe import SynthRecipe

IN_FLIGHT = 8


class Killer(Writer):
    """A `Writer` that kills ``process`` a moment after its ``left``-th request from now."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.process, self.draw = -1, None, random.Random(0)

    def __call__(self, body: Body, n: int) -> Any:
        self.left -= 1
        if self.left == 0 and self.process:
            self.process.kill()
        return Reply(super().__call__(body, n), delay=self.draw.uniform(0, 0.02))


def answered(recipe: SynthRecipe) -> set[tuple[str, int]]:
    """What the store has answers to, as the server sees it: messages and seed."""
    with AnswerStore(recipe.store, read_only=True) as store:
        rows = store.connection.execute("SELECT content FROM requests JOIN answers USING (key)").fetchall()
    return {identity(json.loads(content)) for (content,) in rows}


def identity(body: dict[str, Any]) -> tuple[str, int]:
    return json.dumps(body["messages"], sort_keys=True), body["seed"]


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments(tmp_path: Path, kills: int) -> None:
    """Catches a round that is kept by halves, an order that a resumed run has otherwise, and an answer that is bought again."""
    counts, draw, killer = domains(2, 4, 4 * max(2, kills)), random.Random(kills), Killer()
    with FakeEndpoint(killer) as server:
        endpoint = {"base_url": server.base_url, "model": "fake", "max_concurrency": IN_FLIGHT}
        models = {"writer": {"endpoints": [endpoint]}}
        whole = make_recipe(tmp_path / "whole", models=models, domains=counts)
        run(whole, server)
        total = len(server.requests)
        recipe = make_recipe(tmp_path / "out", models=models, domains=counts)
        command = [sys.executable, "-c", START, str(write_recipe(tmp_path / "out", "", models=models, domains=counts))]
        for _ in range(kills):
            known, before = answered(recipe) if recipe.store.exists() else set(), len(server.requests)
            killer.left = draw.randint(1, 2 * total // (kills + 2))
            killer.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            _, errors = killer.process.communicate(timeout=120)
            assert killer.process.returncode in (-signal.SIGKILL, 0), errors
            assert not known & set(map(identity, server.requests[before:]))
        known, before, killer.process = answered(recipe), len(server.requests), None
        subprocess.run(command, check=True, capture_output=True, timeout=240)
        assert not known & set(map(identity, server.requests[before:]))
    assert tables(recipe) == tables(whole)
    assert len(server.requests) - total <= total + kills * IN_FLIGHT  # at most what was on its way at each kill


START = "import sys; sys.argv = ['ultrafuser', 'synth', sys.argv[1]]; from ultrafuser.cli import app; app()"
