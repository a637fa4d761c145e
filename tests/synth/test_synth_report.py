"""The report against the tables it is made from: right figures, one safe file, a map whose neighbours are alike."""

from __future__ import annotations

import json
import random
import re
import threading
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synth_world import make_recipe, run, tables

from ultrafuser.endpoints.request import ChatAnswer, ChatRequest
from ultrafuser.endpoints.store import AnswerStore
from ultrafuser.errors import UserError
from ultrafuser.synth.findings import gather, histogram
from ultrafuser.synth.map import Embeddings, map_texts
from ultrafuser.synth.place import find_store
from ultrafuser.synth.recipe import SynthRecipe
from ultrafuser.synth.record import Decision
from ultrafuser.synth.report import ReportOptions, map_json, write_report
from ultrafuser.synth.state import State

NASTY = "</script><script>alert(1)</script> <b>bold</b> {{ 7 }} \x1b[31m \u2028"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> SynthRecipe:
    """A small finished synthesis, with something to escape in its texts and a decision."""
    made = make_recipe(tmp_path_factory.mktemp("report") / "out")
    run(made)
    with AnswerStore(made.store) as store:
        state = State(store)
        request = ChatRequest("writer", ({"role": "user", "content": "x"},), "responses")
        store.add_requests([request])
        store.add_answers([ChatAnswer(request.key, "y", "stop", 1234, 56, 0.5)])
        topic, item = next(state.topics("sub_topic")), next(state.items("accepted"))
        topic.name = topic.why = item.instruction = item.response = NASTY
        dropped = next(state.items("dropped"))
        dropped.instruction = NASTY
        with state.transaction():
            state.save_topics([topic])
            state.save_items([item, dropped])
        state.decide(Decision(topic.key, "topic", "reject", note=f"too vague {NASTY}"), Decision(item.key, "item", "accept"))
    return made


class Page(HTMLParser):
    """Checks that every tag is closed, and keeps tags and texts."""

    VOID = ("meta", "link", "input", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "script" not in self.open and "style" not in self.open:
            self.texts.append(data.strip())


def test_one_safe_file(recipe: SynthRecipe) -> None:
    """Catches texts that become markup or scripts, anything loaded from elsewhere, and a part that is missing."""
    text = write_report(recipe.store).read_text()
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 1 and "<b>bold" not in text and "\x1b" not in text
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert name not in ("src", "href") or str(value).startswith(("data:", "#")), (tag, name, value)
            assert not name.startswith("on")
    assert "default-src 'none'" in text and "@import" not in text and "url(" not in text
    titles = ("Statistics", "Map of the instructions", "Topics", "Lengths", "What was dropped, and why", "Cost", "Review")
    assert [title for title in titles if title not in page.texts] == []
    assert any(shown.startswith("too vague </script>") for shown in page.texts)
    assert {"1,234", "0.50"} <= set(page.texts)
    assert "1 item accepted · 1 topic rejected" in " ".join(" ".join(page.texts).split())


def test_figures_are_those_of_the_tables(recipe: SynthRecipe) -> None:
    """Catches counts in the wrong place: the tree against a count by hand, topic by topic, and the sums above it."""
    rows = tables(recipe)
    with AnswerStore(recipe.store, read_only=True) as store:
        findings = gather(State(store), sample=7)
    branches = findings.tree + [meta for root in findings.tree for meta in root.branches]
    branches += [leaf for root in findings.tree for meta in root.branches for leaf in meta.branches]
    assert [branch.topic.id for branch in sorted(branches, key=lambda branch: branch.topic.id)] == [
        t["id"] for t in rows["topics"]
    ]
    for branch in branches:
        for status in ("accepted", "dropped", "pending"):
            below = [item for item in rows["items"] if item["id"].startswith(f"{branch.topic.id}/") and item["status"] == status]
            assert getattr(branch, status) == len(below)
    accepted = [item["id"] for item in rows["items"] if item["status"] == "accepted"]
    assert len(findings.sample) == 7 and {item.id for item in findings.sample} < set(accepted)
    assert sum(map(len, findings.lengths["responses"].values())) == len(accepted)
    assert {reason for reason, items in findings.drops.items() if items} == set(findings.statistics.drops)


def test_the_sample_is_fair_and_always_the_same(recipe: SynthRecipe) -> None:
    """Catches a sample that depends on its size or on the order: a smaller one is part of a larger one."""
    with AnswerStore(recipe.store, read_only=True) as store:
        small, large, again, everything = ({item.id for item in gather(State(store), sample=n).sample} for n in (5, 20, 20, 999))
    assert small < large == again < everything and len(everything) == 60


def test_an_unfinished_synthesis(tmp_path: Path) -> None:
    """Catches a report that needs a finished run: before any item, and with items that wait."""
    made = make_recipe(tmp_path / "out")
    run(made, until="sub_topics")
    Page(write_report(made.store).read_text())
    run(made, until="instructions")
    page = Page(write_report(made.store, tmp_path / "r.html").read_text())
    assert any("0 conversations" in text and "are not finished" in text for text in page.texts)


def test_a_store_without_a_synthesis(tmp_path: Path) -> None:
    """Catches a traceback for a store that other commands made."""
    with AnswerStore(tmp_path / "answers.sqlite"):
        pass
    with pytest.raises(UserError, match="holds no synthesis yet"):
        write_report(find_store(tmp_path))


def test_finding_the_store(recipe: SynthRecipe) -> None:
    """Catches one of the ways to name a synthesis that does not work."""
    folder = recipe.store.parent
    for place in (folder, recipe.store, folder.with_suffix(".yaml")):
        assert find_store(place) == recipe.store
    with pytest.raises(UserError, match="no such store of answers"):
        find_store(folder.parent)


def test_histogram_by_hand() -> None:
    """Catches lengths in the wrong bar, lost ones, and a scale that one very long text ruins."""
    bars = histogram({"a": array("i", [0, 1, 9, 10, 19]), "b": array("i", [5]), "none": array("i")}, bars=2)
    assert [(bar.low, bar.high) for bar in bars] == [(0, 5), (5, 10)]
    assert [bar.shares for bar in bars] == [{"a": 0.4, "b": 0.0}, {"a": 0.6, "b": 1.0}]
    assert histogram({"a": array("i")}) == []
    assert histogram({"a": array("i", [*range(1000), 10**6])})[-1].high < 1100
    assert [bar.shares["a"] for bar in histogram({"a": array("i", [0, 0])})] == [1.0]


def three_subjects(count: int) -> tuple[list[str], list[int]]:
    """Texts about three subjects, each with its own words, in random order."""
    draw = random.Random(0)
    words = [[f"{subject}{n}" for n in range(40)] for subject in ("sea", "wheel", "bread")]
    subjects = [draw.randrange(3) for _ in range(count)]
    return [" ".join(draw.choices(words[subject], k=12)) for subject in subjects], subjects


def neighbours_alike(places: np.ndarray[Any, Any], subjects: list[int]) -> float:
    distances = ((places[:, None] - places[None]) ** 2).sum(-1) + np.diag([np.inf] * len(places))
    return float(np.mean([subjects[place] == subjects[other] for place, other in enumerate(distances.argmin(1))]))


def test_like_lies_near_like() -> None:
    """Catches a map that says nothing: nearest neighbours have the same subject; and one that changes from run to run."""
    texts, subjects = three_subjects(120)
    places = map_texts(texts)
    assert places.shape == (120, 2) and places.min() >= 0 and places.max() <= 1
    assert neighbours_alike(places, subjects) > 0.95
    assert np.array_equal(places, map_texts(texts))


@pytest.mark.parametrize("texts", [[], ["a"], ["same"] * 12, ["?"] * 9])
def test_maps_of_little(texts: list[str]) -> None:
    """Catches a division by zero where there is nothing to tell apart."""
    places = map_texts(texts)
    assert places.shape == (len(texts), 2) and np.isfinite(places).all()


@contextmanager
def embeddings_server(status: int = 200, short: bool = False) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An endpoint whose vectors tell the subject by the first letter; it answers in reverse order, as it may."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append(body | {"key": self.headers.get("Authorization"), "path": self.path})
            vectors = [[float(text[0] == letter) for letter in "swb"] + [n / 1000] for n, text in enumerate(body["input"])]
            data = [{"index": n, "embedding": vector} for n, vector in enumerate(vectors)][:: -1 if not short else 2]
            answer = json.dumps({"data": data}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1", asked
        server.shutdown()


def test_embeddings_arrange_the_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches vectors that go to the wrong texts, a key that is not sent, and texts lost between batches."""
    monkeypatch.setenv("TEST_KEY", "secret-key")
    monkeypatch.setattr("ultrafuser.synth.map.BATCH", 50)
    texts, subjects = three_subjects(120)
    with embeddings_server() as (url, asked):
        places = map_texts(texts, Embeddings(url, "embedder", "TEST_KEY"))
    assert neighbours_alike(places, subjects) > 0.95
    assert [len(body["input"]) for body in asked] == [50, 50, 20]
    assert {(body["model"], body["key"], body["path"]) for body in asked} == {("embedder", "Bearer secret-key", "/v1/embeddings")}


@pytest.mark.parametrize(
    ("status", "short", "message"),
    [
        (401, False, "401 .*; is TEST_KEY set to its key"),
        (500, False, "answered 500"),
        (200, True, "gave 5 embeddings for 10 texts"),
    ],
)
def test_embeddings_fail_in_one_line(monkeypatch: pytest.MonkeyPatch, status: int, short: bool, message: str) -> None:
    """Catches tracebacks, and a key that gets into a message."""
    monkeypatch.setenv("TEST_KEY", "secret-key")
    with embeddings_server(status, short) as (url, _), pytest.raises(UserError, match=message) as raised:
        map_texts(["text"] * 10, Embeddings(url, "embedder", "TEST_KEY"))
    assert "secret-key" not in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"[1, 2]", "gave 0 embeddings for 10 texts"),
        (b'{"data": [{"embedding": [1]}]}', "gave 0 embeddings for 10 texts"),
        (b"<html>", "gave 0 embeddings for 10 texts"),
        (json.dumps({"data": [{"index": n, "embedding": [0.5] * (1 + n % 2)} for n in range(10)]}).encode(), "several lengths"),
        (json.dumps({"data": [{"index": n, "embedding": "x"} for n in range(10)]}).encode(), "no numbers"),
        (json.dumps({"data": [{"index": n, "embedding": 0.5} for n in range(10)]}).encode(), "no numbers"),
    ],
)
def test_nonsense_instead_of_embeddings(monkeypatch: pytest.MonkeyPatch, reply: bytes, message: str) -> None:
    """Catches a traceback where something else than an endpoint of embeddings answers."""
    monkeypatch.setattr("ultrafuser.synth.map.fetch", lambda *_, **__: reply)
    with pytest.raises(UserError, match=message) as raised:
        map_texts(["text"] * 10, Embeddings("http://localhost:1/v1", "embedder"))
    assert "\n" not in str(raised.value)


def test_key_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a key, copied with a line break in it, that is printed in the refusal of the header that would hold it."""
    monkeypatch.setenv("TEST_KEY", "secret\nkey")
    with pytest.raises(UserError, match="TEST_KEY holds letters that no key has") as raised:
        map_texts(["text"] * 10, Embeddings("http://127.0.0.1:9/v1", "embedder", "TEST_KEY"))
    assert "secret" not in str(raised.value)


def test_endpoint_that_is_not_there() -> None:
    """As above, where nothing answers at all."""
    with pytest.raises(UserError, match="cannot be asked for embeddings"):
        map_texts(["text"] * 10, Embeddings("http://127.0.0.1:9/v1", "embedder"))


def test_map_data_is_json_that_may_stand_in_a_script(recipe: SynthRecipe) -> None:
    """Catches a text that ends the script."""
    with AnswerStore(recipe.store, read_only=True) as store:
        items = gather(State(store), sample=99).sample
    text = map_json(items, ["text", "code", "math"], None)
    assert "<" not in text and len(json.loads(text)) == 60 == len(items)
    assert {row[2] for row in json.loads(text)} == {0, 1, 2}


def test_report_that_cannot_be_written(recipe: SynthRecipe, tmp_path: Path) -> None:
    """Catches a traceback for a directory in place of a file, and one for a file whose directory is yet to be made."""
    with pytest.raises(UserError, match="is a directory; give the name of a file"):
        write_report(recipe.store, tmp_path, ReportOptions(mapped=0))
    assert write_report(recipe.store, tmp_path / "new" / "r.html", ReportOptions(mapped=0)).is_file()


def test_no_map_when_none_is_wanted(recipe: SynthRecipe, tmp_path: Path) -> None:
    """Catches a page that draws a map it does not have."""
    text = write_report(recipe.store, tmp_path / "r.html", ReportOptions(mapped=0)).read_text()
    assert "<canvas" not in text and not re.search("<script", text)
