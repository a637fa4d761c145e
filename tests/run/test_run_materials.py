"""Held-out data never overlaps training data, and flagged records are left out."""

from __future__ import annotations

import json

import pytest

from ultrafuser.errors import UserError
from ultrafuser.miniworld import language
from ultrafuser.run.materials import gather
from ultrafuser.run.scratch import template
from ultrafuser.schema import Data, Recipe, Specialist, World


def recipe_of(tmp_path, **data):
    body = {
        "name": "r",
        "output": str(tmp_path / "out"),
        "specialists": [{"name": "a", "path": str(tmp_path)}, {"name": "b", "path": str(tmp_path)}],
        "data": {"directory": str(tmp_path), "domains": ["x", "y"], **data},
    }
    return Recipe.model_validate(body)


def write(tmp_path, name, rows):
    (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_heldout_share_splits_by_question(tmp_path):
    """The same question twice must not be trained on and judged by; the order of the file must not matter."""
    rows = [{"domain": d, "prompt": f"{d} {i % 50}", "response": str(i)} for d in ("x", "y") for i in range(100)]
    write(tmp_path, "a.jsonl", rows)
    first = gather(recipe_of(tmp_path, train=["a.jsonl"], heldout_share=0.3))
    questions = [{one.messages[0]["content"] for one in side} for side in (first.train, first.heldout)]
    assert questions[0] & questions[1] == set()
    assert 0.15 < len(first.heldout) / 200 < 0.45
    write(tmp_path, "a.jsonl", rows[::-1])
    second = gather(recipe_of(tmp_path, train=["a.jsonl"], heldout_share=0.3))
    assert {one.messages[0]["content"] for one in second.heldout} == questions[1]


def test_heldout_questions_are_not_trained_on(tmp_path, caplog):
    """Catches a held-out file that repeats the training's questions, in other words of answer, domain or space around them."""
    rows = [{"domain": d, "prompt": f"{d} {i}", "response": str(i)} for d in ("x", "y") for i in range(10)]
    write(tmp_path, "a.jsonl", rows)
    asked = [("x", "x 3\n", 1), ("x", "y 4", 2), ("y", "y 5", 5), ("y", "another", 0)]
    write(tmp_path, "b.jsonl", [{"domain": d, "prompt": prompt, "response": str(r)} for d, prompt, r in asked])
    found = gather(recipe_of(tmp_path, train=["a.jsonl"], heldout=["b.jsonl"]))
    names = [f"{d} {i}" for d in ("x", "y") for i in range(10) if (d, i) not in {("x", 3), ("y", 4), ("y", 5)}]
    assert [one.messages[0]["content"] for one in found.train] == names and len(found.heldout) == 4
    assert "data.train: 3 conversations left out of training, as data.heldout has the same questions" in caplog.text


def test_heldout_data_that_is_the_training_data_is_refused(tmp_path, caplog):
    """Catches figures on data that was trained on, and a run with nothing to train on; nothing is said where nothing overlaps."""
    rows = [{"domain": d, "prompt": f"{d} {i}", "response": str(i)} for d in ("x", "y") for i in range(10)]
    write(tmp_path, "a.jsonl", rows)
    write(tmp_path, "b.jsonl", [row | {"prompt": f"held out: {row['prompt']}"} for row in rows])
    with pytest.raises(UserError, match=r"data\.train: no example of domain 'x' is left: data\.heldout has all its questions"):
        gather(recipe_of(tmp_path, train=["a.jsonl"], heldout=["a.jsonl"]))
    caplog.clear()
    assert len(gather(recipe_of(tmp_path, train=["a.jsonl"], heldout=["b.jsonl"])).train) == 20
    assert "left out" not in caplog.text


def test_flagged_records_are_left_out(tmp_path):
    """Training on a record known to overlap the evaluation data would make its figures worthless."""
    rows = [{"domain": d, "prompt": f"{d} {i}", "response": "r", "flag": i == 3} for d in ("x", "y") for i in range(5)]
    write(tmp_path, "a.jsonl", rows)
    found = gather(recipe_of(tmp_path, train=["a.jsonl"], leave_out="flag"))
    assert len(found.train) == 8 and not any(one.messages[0]["content"].endswith("3") for one in found.train)


def test_paths_below_the_directory(tmp_path):
    """Files start at data.directory; hub ids are left as they are."""
    data = Data(directory=str(tmp_path))
    assert data.paths(("a.jsonl", "owner/name")) == [str(tmp_path / "a.jsonl"), "owner/name"]


def test_a_specialist_of_the_world_may_have_any_name(tmp_path):
    """Catches a traceback for one that is not named as a domain: it answers in the world's common template."""
    recipe = recipe_of(tmp_path).model_copy(update={"world": World()})
    assert template(recipe, Specialist(name="prose", domains="text")) == language.chat_template("base")
    assert template(recipe, Specialist(name="math")) == language.chat_template("math") != language.chat_template("base")
