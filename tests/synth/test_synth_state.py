"""The tables: order, transactions, decisions that take effect and are kept, also in data made anew."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from synth_world import Writer, accepted_per_topic, make_recipe, run, tables

from fake_endpoint import FakeEndpoint
from ultrafuser.endpoints.store import AnswerStore
from ultrafuser.errors import UserError
from ultrafuser.synth.recipe import SynthRecipe
from ultrafuser.synth.record import REJECTED, Decision, Item, Topic
from ultrafuser.synth.state import State


def decide(recipe: SynthRecipe, *decisions: Decision) -> None:
    with AnswerStore(recipe.store) as store:
        State(store).decide(*decisions)


def topic_of(recipe: SynthRecipe, id: str) -> Topic:
    with AnswerStore(recipe.store) as store:
        return next(topic for topic in State(store).topics(active=False) if topic.id == id)


def test_everything_comes_back_in_order(tmp_path: Path) -> None:
    """Catches a field that is not kept, an order by time of writing, and a selection that takes in a neighbour's."""
    topics = [
        Topic("code", "code"),
        Topic("code/001", "Web", "w", "u", rounds=2),
        Topic("code/001/000", "CSS", provenance={"a": [1]}),
    ]
    topics += [
        Topic("codes", "codes"),
        Topic("codes/000", "X"),
        Topic("codes/000/000", "Y", status="dropped", reason="duplicate: of Z"),
    ]
    mine = Item(
        "code/001/000/0001", "code", "Web", "CSS", "weak", "Écris «ça» 日本", "vorher", "r", [{"role": "user", "content": "?"}]
    )
    mine.traits, mine.provenance, mine.slot, mine.step = {"language": "C#"}, {"responses": {"seed": 1}}, 3, "score"
    other = Item("codes/000/000/0000", "codes", "X", "Y", "seed", "Do it.", status="accepted")
    with AnswerStore(tmp_path / "s.sqlite") as store:
        state = State(store)
        with state.transaction():
            state.save_topics(reversed(topics))
            state.save_items([other, mine])
    with AnswerStore(tmp_path / "s.sqlite", read_only=True) as store:
        state = State(store)
        assert list(state.topics(active=False)) == topics and list(state.topics()) == topics[:-1]
        assert list(state.topics(below="code")) == topics[1:3] and list(state.topics("meta_topic")) == [topics[1], topics[4]]
        assert list(state.items()) == [mine, other] and list(state.items(below="code")) == [mine]
        assert list(state.items("accepted")) == [other] and list(state.items("pending", step="score")) == [mine]
        assert list(state.items(key=mine.key)) == [mine] and state.waiting("score") == 1
        assert state.taken() == {"code/001/000": {3}, "codes/000/000": {0}} and state.written()["code/001/000"] == 1


def test_a_transaction_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    """Catches half a round in the tables after a failure in its middle."""
    with AnswerStore(tmp_path / "s.sqlite") as store:
        state = State(store)
        with pytest.raises(KeyError), state.transaction():
            state.save_topics([Topic("code", "code")])
            raise KeyError
        assert not list(state.topics())


def test_full_disk_is_one_line(tmp_path: Path) -> None:
    """Catches a traceback of SQLite's, and tables that are damaged by it."""
    with AnswerStore(tmp_path / "s.sqlite") as store:
        state = State(store)
        pages = store.connection.execute("PRAGMA page_count").fetchone()[0]
        store.connection.execute(f"PRAGMA max_page_count = {pages + 5}")
        with pytest.raises(UserError, match="the disk is full"), state.transaction():
            state.save_topics(Topic(f"code/{place:03d}", "x" * 1000) for place in range(100))
        assert not list(state.topics())


def test_rejected_topics_are_replaced(tmp_path: Path) -> None:
    """Catches items of a rejected topic in the data, a quota that stays short, and a rejected name that is asked for again."""
    recipe = make_recipe(tmp_path / "out")
    run(recipe)
    meta, sub = topic_of(recipe, "code/001"), topic_of(recipe, "text/000/000")
    decide(recipe, *(Decision(topic.key, "topic", "reject") for topic in (meta, sub)))
    items = run(recipe)
    gone = [item for item in items if item.id.startswith(("code/001/", "text/000/000/"))]
    assert gone and all(item.status == "dropped" for item in gone)
    assert Counter(item.reason for item in gone)[f"{REJECTED}: with code/001"] == 10
    counts = accepted_per_topic(recipe)
    assert set(counts.values()) == {5} and len(counts) == 12
    assert not {topic for topic in counts if topic.startswith(("code/001", "text/000/000"))}
    with AnswerStore(recipe.store) as store:
        names = [(topic.domain, topic.name) for topic in State(store).topics()]
    assert len(names) == len(set(names)) and not {("code", meta.name), ("text", sub.name)} & set(names)


def test_rejected_and_edited_items(tmp_path: Path) -> None:
    """Catches a decision that is not respected: a rejected item kept, an edit lost, a new wording with the old answer."""
    recipe = make_recipe(tmp_path / "out", complicated=0.0, turns={"share": 0.0})
    first, second, third, fourth, *_ = [item for item in run(recipe) if item.status == "accepted"]
    decide(
        recipe,
        Decision(first.key, "item", "reject"),
        Decision(second.key, "item", "edit", {"instruction": "Explain what a decision is, please."}),
        Decision(third.key, "item", "edit", {"response": "By hand. The answer is 42."}),
        Decision(fourth.key, "item", "accept"),
    )
    for _ in range(2):  # a decision takes effect once
        items = {item.id: item for item in run(recipe)}
        assert (items[first.id].status, items[first.id].reason) == ("dropped", REJECTED)
        assert items[second.id].instruction == "Explain what a decision is, please."
        assert items[third.id].turns[1]["content"] == "By hand. The answer is 42." and items[third.id].status == "accepted"
        assert items[fourth.id].provenance.pop("review") == {"action": "accept"} and items[fourth.id] == fourth
        assert set(accepted_per_topic(recipe).values()) == {5}
    if items[second.id].status == "accepted":
        assert items[second.id].response not in (None, second.response)


def test_decisions_outlive_the_data(tmp_path: Path) -> None:
    """Catches a decision that is forgotten when the data are made anew from the answers."""
    recipe = make_recipe(tmp_path / "out")
    run(recipe)
    topic, edited = topic_of(recipe, "math/000/001"), topic_of(recipe, "math/001/000")
    decide(
        recipe, Decision(topic.key, "topic", "reject"), Decision(edited.key, "topic", "edit", {"name": "Better", "why": "So."})
    )
    with AnswerStore(recipe.store) as store:
        State(store).clear()
    run(recipe)
    assert topic_of(recipe, "math/000/001").reason == REJECTED
    assert (topic_of(recipe, "math/001/000").name, topic_of(recipe, "math/001/000").why) == ("Better", "So.")
    assert set(accepted_per_topic(recipe).values()) == {5}
    with AnswerStore(recipe.store) as store:
        assert all(item.sub_topic != edited.name for item in State(store).items())


def test_made_anew_without_asking(tmp_path: Path) -> None:
    """Catches state that does not follow from recipe and answers: cleared, it must come back the same from the answers alone."""
    with FakeEndpoint(Writer()) as server:
        recipe = make_recipe(tmp_path / "out", server.base_url)
        run(recipe, server)
        before, asked = tables(recipe), len(server.requests)
        with AnswerStore(recipe.store) as store:
            State(store).clear()
        run(recipe, server)
        assert tables(recipe) == before and len(server.requests) == asked
