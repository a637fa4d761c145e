"""Where a run writes: nothing that lies there is lost unasked, and what a killed run has left is no obstacle."""

from __future__ import annotations

import contextlib
import os
import shutil
from functools import partial
from pathlib import Path

import pytest
from training_world import TWO_STEPS, conversations, start, write_data

from ultrafuser.errors import UserError
from ultrafuser.lock import only_one
from ultrafuser.train.claim import claim, read_facts

FACTS = {"stages": {}, "settings": {}, "data": "0"}


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def broken(*args, **options):
    raise KeyboardInterrupt


def test_what_is_read_is_never_replaced(fused, tmp_path):
    """Catches ``--overwrite`` that destroys the model or the data it was to be made from, or an output put into the model."""
    model = tmp_path / "set" / "fused"
    shutil.copytree(fused, model)
    data = write_data(tmp_path / "set" / "d.jsonl")
    (tmp_path / "x.work").mkdir()
    inside = write_data(tmp_path / "x.work" / "d.jsonl")
    before = snapshot(tmp_path)
    for given, out in [
        (data, model),
        (data, tmp_path / "set"),
        ([data], data),
        (str(data), model / ".." / "fused"),
        (f"{tmp_path / 'set'}:train", tmp_path / "set"),
        (inside, tmp_path / "x"),
    ]:
        with pytest.raises(UserError, match=r"is or holds .*, which is read from; choose another output"):
            start(model, given, out, overwrite=True)
    with pytest.raises(UserError, match=r"lies in .*, which is read from"):
        start(model, data, model / "out", overwrite=True)
    with pytest.raises(UserError, match=r"x\.work: already exists"):  # somebody else's
        start(model, data, tmp_path / "x")
    assert snapshot(tmp_path) == before


def test_a_directory_that_this_run_has_not_made_stays(fused, tmp_path, monkeypatch):
    """Catches somebody's ``OUT-gate`` taken for this run's because the run is unfinished, or because it came while it ran."""
    precious = tmp_path / "out-gate" / "precious"
    with monkeypatch.context() as patch:
        patch.setattr("ultrafuser.train.run.publish", broken)
        with pytest.raises(KeyboardInterrupt):
            start(fused, conversations(), tmp_path / "out", TWO_STEPS)
    precious.parent.mkdir()
    precious.touch()
    with pytest.raises(UserError, match=r"out-gate: already exists; choose another output or give --overwrite"):
        start(fused, tmp_path / "missing.jsonl", tmp_path / "out", TWO_STEPS, keep_stages=True)  # before anything is read
    with monkeypatch.context() as patch:
        patch.setattr("ultrafuser.train.places.Places.require_usable", lambda *args, **options: None)  # it was not there then
        with pytest.raises(UserError, match=r"out-gate: already exists"):
            start(fused, conversations(), tmp_path / "out", TWO_STEPS, keep_stages=True)
    assert precious.exists() and not (tmp_path / "out").exists()
    start(fused, conversations(), tmp_path / "out", TWO_STEPS, keep_stages=True, overwrite=True)
    assert (tmp_path / "out").exists() and not precious.exists()


def test_what_this_run_has_made_is_no_obstacle(fused, tmp_path, monkeypatch):
    """Catches a run that, killed once a stage's result was in its place, refuses to go on; and an edit of that lost."""
    out, kept, aside = tmp_path / "out", tmp_path / "out-gate", tmp_path / "aside"
    with monkeypatch.context() as patch:
        patch.setattr("ultrafuser.train.publish._write_history", broken)
        with pytest.raises(KeyboardInterrupt):
            start(fused, conversations(), out, TWO_STEPS, keep_stages=True)
    made = snapshot(kept)
    shutil.copytree(kept, aside)
    for edit in (
        lambda: (kept / "README.md").write_text("mine"),
        lambda: (kept / "specialists" / "text" / "notes").write_text("mine"),
        lambda: (kept / ".notes").write_text("mine"),
        lambda: (kept / "gate.safetensors").unlink(),
    ):
        edit()
        edited = snapshot(kept)
        with pytest.raises(UserError, match="out-gate: already exists"):
            start(fused, conversations(), out, TWO_STEPS, keep_stages=True)
        assert snapshot(kept) == edited
        shutil.rmtree(kept)
        shutil.copytree(aside, kept)  # no links, as where the file system has none
    start(fused, conversations(), out, TWO_STEPS, keep_stages=True)
    assert snapshot(kept) == made and {path.name for path in tmp_path.iterdir()} == {"out", "out-gate", "aside"}


@pytest.mark.parametrize("file", ["thesis.txt", "settings.json", "settings.json/thesis.txt"])
def test_only_a_run_is_ever_taken_for_an_unfinished_one(file, fused, tmp_path):
    """Catches ``--overwrite`` that removes a directory that its user has never named: ``OUT.work``, which is somebody else's."""
    theirs = tmp_path / "out.work" / file
    theirs.parent.mkdir(parents=True)
    theirs.write_text('{"editor": {"settings": 1}}')
    told = r"out\.work: already exists and is no unfinished run, so nothing replaces it; move it away or choose another output"
    for overwrite in (False, True):
        with pytest.raises(UserError, match=told):  # before anything is read
            start(fused, tmp_path / "missing.jsonl", tmp_path / "out", overwrite=overwrite)
        with pytest.raises(UserError, match=told):
            claim(tmp_path / "out.work", FACTS, overwrite=overwrite)
    assert theirs.read_text() == '{"editor": {"settings": 1}}'


@pytest.mark.parametrize("moment", [1, 2, 3])
def test_a_work_directory_is_never_without_its_settings(moment, tmp_path, monkeypatch):
    """Catches a run that was killed while it made its work directory, or made it anew, and is then told that it is another's."""
    work, rename, left = tmp_path / "out.work", os.rename, moment

    def killed(*args):
        nonlocal left
        left -= 1
        if not left:
            raise KeyboardInterrupt
        rename(*args)

    for facts in (FACTS, FACTS | {"data": "other"}):
        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            patch.setattr(os, "rename", killed)
            claim(work, facts, overwrite=True)
        claim(work, facts, overwrite=True)
        assert read_facts(work / "settings.json") == facts


def killed_while_tidying_up(patch):
    """Have the work directory's rests stay, as after a kill that comes once it has been renamed."""
    remove = shutil.rmtree

    def killed(path, *args, **options):
        if Path(path).suffix == ".old":
            raise KeyboardInterrupt
        remove(path, *args, **options)

    patch.setattr(shutil, "rmtree", killed)


def killed_before_tidying_up(patch):
    patch.setattr("ultrafuser.train.run.remove_directory", broken)


@pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"keep_stages": True}])
@pytest.mark.parametrize("moment", [killed_before_tidying_up, killed_while_tidying_up])
def test_killed_between_the_result_and_the_end(moment, options, fused, tmp_path, monkeypatch):
    """Catches a run that is done but for its work directory, and then is refused, or trains everything anew."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        moment(patch)
        start(fused, conversations(), tmp_path / "out", TWO_STEPS, **options)
    before = snapshot(tmp_path / "out")
    assert before and len([*tmp_path.iterdir()]) == 2 + ("keep_stages" in options)
    with pytest.raises(UserError, match="out: already exists"):
        start(fused, conversations(), tmp_path / "out", TWO_STEPS, seed=1, **options | {"overwrite": False})
    with monkeypatch.context() as patch:
        patch.setattr("ultrafuser.train.run.train_stage", broken)
        assert start(fused, conversations(), tmp_path / "out", TWO_STEPS, **options) == tmp_path / "out"
    names = {"out", "out-gate"} if "keep_stages" in options else {"out"}
    assert snapshot(tmp_path / "out") == before and {path.name for path in tmp_path.iterdir()} == names
    with pytest.raises(UserError, match="out: already exists"):
        start(fused, conversations(), tmp_path / "out", TWO_STEPS)


def test_a_second_training_is_not_taken_for_the_first(fused, tmp_path, monkeypatch):
    """Catches an interrupted ``--overwrite`` whose work is thrown away since the earlier result was made of the same things."""
    out = start(fused, conversations(), tmp_path / "out", TWO_STEPS)
    (out / "README.md").write_text("the first")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("ultrafuser.train.run.publish", broken)
        start(fused, conversations(), out, TWO_STEPS, overwrite=True)
    with pytest.raises(UserError, match="out: already exists"):
        start(fused, conversations(), out, TWO_STEPS)
    start(fused, conversations(), out, TWO_STEPS, overwrite=True)
    assert (out / "README.md").read_text() != "the first" and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_trackers_write_is_kept(fused, tmp_path):
    """Catches logs below the work directory, where TensorBoard's lie by default, that go when training succeeds."""
    out = start(fused, conversations(), tmp_path / "out", TWO_STEPS, report_to=["tensorboard"])
    events = {path.relative_to(out).parts[:3]: path.read_bytes() for path in out.rglob("events.out.tfevents.*")}
    assert events.keys() == {("training", stage, "runs") for stage in ("gate", "joint")}
    assert all(b"gate_entropy" in content and b"loss/math" in content for content in events.values())


def test_two_at_once(fused, tmp_path):
    """Catches two runs in one work directory: one removes the other's checkpoints, or both write the same file."""
    again = partial(start, fused, conversations(), tmp_path / "out")
    with only_one("training", tmp_path / "out"), pytest.raises(UserError, match="another training is going on there"):
        again()
    assert not [*tmp_path.iterdir()]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError, match="another training is going on there"):
        patch.setattr("ultrafuser.train.run._run_stages", lambda *args: again())  # while the first is at work
        again()


@pytest.mark.parametrize("beyond", ["a file", "a file system that takes nothing"])
def test_an_impossible_output_is_told_first(beyond, fused, tmp_path, monkeypatch):
    """Catches a traceback, or hours of tokenising, before a place that cannot be created is told in one line."""
    data = write_data(tmp_path / "d.jsonl")
    out = {"a file": data / "x", "a file system that takes nothing": "/proc/x/y"}[beyond]
    monkeypatch.setattr("ultrafuser.train.run.read_conversations", lambda *args, **options: pytest.fail("was read first"))
    with pytest.raises(UserError, match=r"cannot be created in .* \((Not a directory|No such file or directory)\)"):
        start(fused, data, out)


def test_a_file_is_never_replaced_by_a_directory(fused, tmp_path):
    """Catches ``--overwrite`` that takes away a file because its name was typed in the place of an output directory."""
    file = tmp_path / "script.py"
    file.write_text("print(1)")
    with pytest.raises(UserError, match=r"script\.py: is a file; give the name of a directory"):
        start(fused, conversations(), file, overwrite=True)
    assert file.read_text() == "print(1)"


def test_an_output_without_a_name(fused, tmp_path, monkeypatch):
    """Catches a traceback for the current directory, which has no place beside it for the work directory."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "d.jsonl")
    with pytest.raises(UserError, match=r"^\.: already exists"):
        start(fused, "d.jsonl", ".")
    with pytest.raises(UserError, match=r"^\.: is or holds d\.jsonl, which is read from"):
        start(fused, "d.jsonl", ".", overwrite=True)
