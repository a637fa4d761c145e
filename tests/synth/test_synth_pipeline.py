"""Whole runs against a server with the real protocol: exact counts, every drop explained, the same output whatever the order."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from synth_world import Scripted, Writer, accepted_per_topic, domains, make_recipe, run, tables, write_recipe
from typer.testing import CliRunner

from fake_endpoint import Body, FakeEndpoint, Reply, Script, spoiled, troubled
from ultrafuser.cli import app
from ultrafuser.endpoints.budget import BudgetReached
from ultrafuser.endpoints.store import AnswerStore
from ultrafuser.errors import UserError
from ultrafuser.synth.quality.duplicates import jaccard, normalise, shingles
from ultrafuser.synth.recipe import SynthRecipe
from ultrafuser.synth.record import Item
from ultrafuser.synth.run import run_synth
from ultrafuser.synth.state import State


def delayed(script: Script, seed: int) -> Script:
    """``script``, with answers that arrive in another order for every ``seed``."""
    draw = random.Random(seed)
    return lambda body, n: Reply(str(script(body, n)), delay=draw.uniform(0.0, 0.01))


def comparable(recipe: SynthRecipe, server: FakeEndpoint) -> str:
    return json.dumps(tables(recipe), sort_keys=True).replace(server.base_url, "URL")


def check_data(recipe: SynthRecipe, items: list[Item]) -> None:
    """What is promised of the finished data."""
    accepted = [item for item in items if item.status == "accepted"]
    for name, domain in recipe.domains.items():
        counts = {topic: count for topic, count in accepted_per_topic(recipe).items() if topic.startswith(f"{name}/")}
        assert sum(counts.values()) == domain.instructions and len(counts) == domain.sub_topics
        assert max(counts.values()) - min(counts.values()) <= 1
        per_meta = Counter(topic.rpartition("/")[0] for topic in counts)
        assert len(per_meta) == domain.meta_topics and max(per_meta.values()) - min(per_meta.values()) <= 1
    assert all(item.reason and item.status == "dropped" for item in items if item.status != "accepted")
    assert all(item.turns[-1]["role"] == "assistant" for item in accepted)
    assert len({normalise(item.instruction) for item in accepted}) == len(accepted)


def test_three_domains(tmp_path: Path) -> None:
    """Catches wrong counts, duplicates that stay, drops without a reason, and a result that depends on the order of answers.

    The server writes prose around JSON, breaks it, cuts it off, refuses, repeats, and fails with 429, 500 and cut connections.
    """
    results = []
    for seed in (1, 2):
        bad = spoiled(Writer(), 0.3, kinds=("prose", "fence", "comma", "cut off", "refusal", "empty"))
        with FakeEndpoint(troubled(delayed(bad, seed), 0.2, seed)) as server:
            recipe = make_recipe(tmp_path / f"out{seed}", server.base_url)
            items = run(recipe, server)
            check_data(recipe, items)
            results.append(comparable(recipe, server))
            assert set(server.counts) >= {"200", "429", "500", "cut"}
    assert results[0] == results[1].replace("out2", "out1")
    reasons = Counter(item.reason.partition(":")[0] for item in items if item.reason)
    assert set(reasons) >= {"duplicate", "speaks of itself as an AI"}
    texts = [shingles(normalise(item.instruction)) for item in items if item.status == "accepted"]
    assert max(jaccard(first, second) for first, second in combinations(texts, 2)) < recipe.duplicate_threshold


@pytest.mark.slow
def test_three_domains_of_a_thousand(tmp_path: Path) -> None:
    """As above, at the size of the issue; a second run over the same store asks nothing and changes nothing."""
    counts = domains(10, 40, 1000)
    counts["code"]["sub_topics"], counts["math"]["sub_topics"] = 37, 24
    bad = spoiled(Writer(), 0.2, kinds=("prose", "fence", "comma", "cut off", "refusal", "empty"))
    with FakeEndpoint(troubled(bad, 0.05)) as server:
        recipe = make_recipe(tmp_path / "out", server.base_url, domains=counts, per_request=10)
        items = run(recipe, server)
        check_data(recipe, items)
        before, asked = tables(recipe), len(server.requests)
        with AnswerStore(recipe.store) as store:
            State(store).clear()
        run(recipe, server)
        assert tables(recipe) == before and len(server.requests) == asked
    texts = [shingles(normalise(item.instruction)) for item in items if item.status == "accepted"]
    assert max(jaccard(first, second) for first, second in combinations(texts, 2)) < recipe.duplicate_threshold


def test_step_by_step_is_the_same(tmp_path: Path) -> None:
    """Catches a stop after a step that asks for more than was wanted, or that changes what comes out in the end."""
    whole, recipe = make_recipe(tmp_path / "whole"), make_recipe(tmp_path / "parts")
    run(whole)
    wanted = {"meta_topics": {"meta_topics"}, "sub_topics": {"sub_topics"}, "instructions": {"instructions"}}
    for until in (*wanted, "responses"):
        engine = Scripted(Writer())
        items = run(recipe, engine, until=until)
        assert {request.step for request in engine.asked} == wanted.get(until, {"complicate", "responses"})
        assert until != "sub_topics" or (len(accepted_per_topic(recipe)) == 12 and not items)
        assert not run(recipe, Scripted(None), until="meta_topics") or until != "meta_topics"  # nothing is left to ask
    run(recipe)
    assert tables(recipe) == tables(whole)


def step_of(body: Body) -> str:
    properties = body.get("response_format", {}).get("json_schema", {}).get("schema", {}).get("properties", {"response": 0})
    return str(next(iter(properties)))


def test_counts_may_grow_and_shrink(tmp_path: Path) -> None:
    """Catches a larger recipe that starts anew, and a smaller one that leaves more than was asked for."""
    kept = {item.id for item in run(make_recipe(tmp_path / "out")) if item.status == "accepted"}
    larger = make_recipe(tmp_path / "out", domains=domains(2, 4, 30))
    items = run(larger)
    check_data(larger, items)
    assert kept <= {item.id for item in items if item.status == "accepted"}
    smaller = make_recipe(tmp_path / "out", domains=domains(2, 4, 18))
    items = run(smaller, Scripted(None))  # asks nothing
    check_data(smaller, items)
    assert any(item.reason.startswith("surplus") for item in items)


def test_spending_cap(tmp_path: Path) -> None:
    """Catches a cap that is passed, that loses what was bought, or after which the same command does not go on."""
    priced = {"model": "fake", "price_input": 100, "price_output": 100}
    with FakeEndpoint(Writer()) as server:
        models = {"writer": {"endpoints": [{"base_url": server.base_url, **priced}], "max_tokens": 100}}
        poor = make_recipe(tmp_path / "out", server.base_url, models=models, budget=2.0)
        with pytest.raises(BudgetReached, match="the same command goes on"):
            run(poor, server)
        with AnswerStore(poor.store) as store:
            assert 1.0 < store.spent() <= 2.0
        rich = make_recipe(tmp_path / "out", server.base_url, models=models, budget=1000)
        run(rich, server)
        whole = make_recipe(tmp_path / "whole", server.base_url, models=models)
        run(whole, server)
        assert comparable(rich, server) == comparable(whole, server)
        assert max(Counter(json.dumps(body) for body in server.requests).values()) <= 2  # once for each of the two recipes


class Dying(Writer):
    """A `Writer` that serves so many requests, then nothing but errors."""

    def __init__(self, serves: int) -> None:
        super().__init__()
        self.left = serves

    def __call__(self, body: Body, n: int) -> Any:
        self.left -= 1
        return super().__call__(body, n) if self.left >= 0 else Reply("Overloaded.", 503, {"retry-after": "0.01"})


def test_endpoint_that_dies_halfway(tmp_path: Path) -> None:
    """Catches an endless wait or a traceback when the endpoint goes down, and answers that are lost with it."""
    script = Dying(100)
    with FakeEndpoint(script) as server:
        recipe = make_recipe(tmp_path / "out", server.base_url)
        with pytest.raises(UserError) as caught:
            run(recipe, server)
        assert "\n" not in str(caught.value) and server.base_url in str(caught.value)
        script.left = 10_000
        items = run(recipe, server)
        check_data(recipe, items)
        assert max(Counter(json.dumps(body) for body in server.answered).values()) == 1


def test_full_disk_halfway(tmp_path: Path) -> None:
    """Catches a disk that fills up: one line, nothing lost, and the same command goes on when there is room."""
    with FakeEndpoint(Writer()) as server:
        recipe = make_recipe(tmp_path / "out", server.base_url)
        recipe.store.parent.mkdir()
        with AnswerStore(recipe.store) as store:
            from ultrafuser.endpoints.engine import LocalEngine
            from ultrafuser.synth.pipeline import synthesise

            store.claim(recipe.identity)
            State(store)
            pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
            store.connection.execute(f"PRAGMA max_page_count = {pages + 60}")
            with pytest.raises(UserError, match="the disk is full"):
                synthesise(recipe, store, LocalEngine(recipe.models, store), log=lambda line: None)
        check_data(recipe, run(recipe, server))
        assert len(server.answered) > 50
        again = [count for count in Counter(json.dumps(body) for body in server.answered).values() if count > 1]
        assert len(again) <= 32  # what was on its way


@pytest.mark.parametrize(
    ("endpoint", "told"),
    [
        ({"api_key_env": "ULTRAFUSER_TEST_KEY"}, "Incorrect API key"),
        ({"model": "fkae"}, "does not exist"),
        ({"base_url": "http://127.0.0.1:9/v1"}, "127.0.0.1:9"),
    ],
)
def test_endpoints_that_never_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, endpoint: dict[str, Any], told: str
) -> None:
    """Catches a wrong key, an unknown model or a wrong address that is told in more than a line, or that gives away the key."""
    monkeypatch.setenv("ULTRAFUSER_TEST_KEY", "sk-secret")
    with FakeEndpoint(Writer(), api_key="right") as server:
        if "api_key_env" not in endpoint:
            server.api_key = None
        models = {"writer": {"endpoints": [{"base_url": server.base_url, "model": "fake"} | endpoint]}}
        recipe = make_recipe(tmp_path / "out", models=models)
        with pytest.raises(UserError) as caught:
            run(recipe, server)
    assert told in str(caught.value) and "\n" not in str(caught.value)
    assert b"sk-secret" not in b"".join(file.read_bytes() for file in recipe.store.parent.iterdir())


def test_store_of_another_recipe(tmp_path: Path) -> None:
    """Catches data half of one recipe and half of another; with --rebuild they are made anew, from what fits of the answers."""
    with FakeEndpoint(Writer()) as server:
        run_synth(make_recipe(tmp_path / "out", server.base_url))
        changed = make_recipe(tmp_path / "out", server.base_url, complicated=0.5)
        with pytest.raises(UserError, match=r"another recipe.*--rebuild") as caught:
            run_synth(changed)
        assert "\n" not in str(caught.value)
        topics = [body for body in server.requests if step_of(body) == "topics"]
        outcome = run_synth(changed, rebuild=True)
        assert outcome.accepted == outcome.wanted == 60
        assert [body for body in server.requests if step_of(body) == "topics"] == topics


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_output_that_cannot_be_made(tmp_path: Path, place: str) -> None:
    """A file where the output is to be, or above it, is a traceback."""
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file.*: cannot be created \(.*\); choose another output$"):
        run_synth(make_recipe(tmp_path / "out").model_copy(update={"output": str(tmp_path / place)}))


def test_command_line(tmp_path: Path) -> None:
    """Catches options that do not arrive, a dry run that asks or writes, and a mistake with a traceback."""
    with FakeEndpoint(Writer()) as server:
        file = str(write_recipe(tmp_path / "out", server.base_url))
        dry = CliRunner().invoke(app, ["synth", file, "--dry-run"])
        assert dry.exit_code == 0 and "instructions" in dry.stdout and not server.requests
        assert not (tmp_path / "out").exists()
        few = CliRunner().invoke(app, ["synth", file, "domains.text.instructions=8", "--until", "sub_topics"])
        assert few.exit_code == 0 and "0 of 48 conversations" in few.stdout, few.output
        done = CliRunner().invoke(app, ["synth", "run", file])
        assert done.exit_code == 0 and "60 of 60 conversations" in done.stdout, done.output
        assert "writing 60 conversations to " in done.stderr  # which takes a while where there are many
        assert "$" not in (few.stdout + done.stdout)  # no prices are given
        seen = CliRunner().invoke(app, ["synth", "review", file, "--below", "code"], input="a\nq\n")
        assert seen.exit_code == 0 and "decided: 1 accept" in seen.stdout, seen.output
        report = CliRunner().invoke(app, ["synth", "report", str(tmp_path / "out"), "--mapped", "10"])
        assert report.exit_code == 0 and (tmp_path / "out" / "report.html").exists(), report.output
    bad = CliRunner().invoke(app, ["synth", file, "domains.text.instructions=1"])
    assert bad.exit_code == 2 and bad.stderr.startswith("error: ") and "cannot fill sub_topics=4" in bad.stderr


def test_without_torch(tmp_path: Path) -> None:
    """Catches an import of torch or transformers on the way of the synthesis."""
    with FakeEndpoint(Writer()) as server:
        file = write_recipe(tmp_path / "out", server.base_url)
        code = (
            "import sys; sys.modules.update(torch=None, transformers=None); sys.argv = ['ultrafuser', 'synth', sys.argv[1]]\n"
            "from ultrafuser.cli import app; app()"
        )
        done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "60 of 60 conversations" in done.stdout


def test_result_feeds_training(tmp_path: Path) -> None:
    """Catches data that `ultrafuser train` does not take as they are, and a card or a note on the check that is missing."""
    from tiny import tiny_specialist
    from ultrafuser.data.conversations import read_conversations
    from ultrafuser.model.fuse import fuse
    from ultrafuser.train.run import train
    from ultrafuser.train.stage import Stage, TrainSettings

    with FakeEndpoint(Writer()) as server:
        outcome = run_synth(make_recipe(tmp_path / "out", server.base_url))
    assert sorted(file.name for file in outcome.data) == ["README.md", "data.jsonl", "data.parquet"]
    names = ["text", "code", "math"]
    read = [read_conversations(tmp_path / "out" / file, domains=names) for file in ("data.jsonl", "data.parquet")]
    assert [one.messages for one in read[0]] == [one.messages for one in read[1]]
    assert Counter(conversation.domain for conversation in read[0]) == {"text": 20, "code": 20, "math": 20}
    stage = Stage("gate", moves="gate", steps=2, per_domain=2, learning_rate=1e-2)
    settings = TrainSettings(progress=False, micro_batch_size=2)
    fused = fuse([tiny_specialist(tmp_path / name) for name in names], tmp_path / "fused", names=names)
    train(fused, tmp_path / "out" / "data.jsonl", tmp_path / "trained", stages=[stage], settings=settings)
    assert (tmp_path / "trained" / "model.safetensors.index.json").exists()


@pytest.mark.slow
def test_ray_gives_the_same_records(tmp_path: Path) -> None:
    """Catches a step whose result depends on the engine that asks."""
    pytest.importorskip("ray")
    with FakeEndpoint(Writer()) as server:
        local = make_recipe(tmp_path / "local", server.base_url)
        run_synth(local)
        ray = make_recipe(tmp_path / "ray", server.base_url, engine="ray", actors=2)
        run_synth(ray)
    assert tables(ray) == tables(local)
    assert (tmp_path / "ray" / "data.jsonl").read_bytes() == (tmp_path / "local" / "data.jsonl").read_bytes()
