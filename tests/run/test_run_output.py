"""Where a run may write, what it may replace, and when."""

from __future__ import annotations

import pytest

from ultrafuser.errors import UserError
from ultrafuser.run.output import Output

RECIPE, INPUTS = {"seed": 0}, {"data": "a"}


def claimed(folder):
    """An output with an unfinished run in it."""
    output = Output(folder)
    output.claim(RECIPE, INPUTS, overwrite=False)
    (output.work / "fused").mkdir()
    return output


def published(folder, what="first"):
    """An output with a finished run in it."""
    output = claimed(folder)
    (output.work / "report.html").write_text(what)
    output.publish()
    return output


@pytest.mark.parametrize("place", ["good.jsonl/x", "good.jsonl/x/y", "/proc/x/y"])
def test_place_where_nothing_can_be_made_is_one_line(tmp_path, place):
    """Catches a traceback of NotADirectoryError or FileNotFoundError, and directories left by the attempt."""
    (tmp_path / "good.jsonl").write_text("{}")
    with pytest.raises(UserError, match="cannot be created") as error:
        Output(tmp_path / place).require_usable([], overwrite=True)
    assert "\n" not in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == ["good.jsonl"]


def test_asking_leaves_nothing(tmp_path):
    """Catches parents that stay when a later mistake ends the run."""
    Output(tmp_path / "a" / "b").require_usable([], overwrite=False)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("read", ["run/model", "run", "run.work/text", "run/data.jsonl"])
def test_what_is_read_is_never_replaced(tmp_path, read):
    """Catches --overwrite that deletes the specialists or the data of the very run."""
    published(tmp_path / "run")
    claimed(tmp_path / "run")
    (tmp_path / read).mkdir(parents=True, exist_ok=True)
    with pytest.raises(UserError, match="which is read from"):
        Output(tmp_path / "run").require_usable([tmp_path / read], overwrite=True)


@pytest.mark.parametrize("place", ["run", "run.work"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_other_peoples_files_stay(tmp_path, place, overwrite):
    """Catches --overwrite that replaces a directory, or a file, that no run has made."""
    (tmp_path / place).mkdir()
    (tmp_path / place / "diary.txt").write_text("dear diary")
    with pytest.raises(UserError, match="already exists and is no run's output"):
        Output(tmp_path / "run").require_usable([], overwrite=overwrite)
    with pytest.raises(UserError, match="already exists and is no run's output"):
        Output(tmp_path / place / "diary.txt").require_usable([], overwrite=overwrite)


def test_unfinished_run_is_gone_on_with_by_the_same_run_only(tmp_path):
    """Catches models of other data or another recipe taken for this run's own, and lost ones that are this run's."""
    fused = claimed(tmp_path / "run").work / "fused"
    output = Output(tmp_path / "run")
    output.claim(RECIPE, INPUTS, overwrite=False)
    assert fused.exists()
    output.claim(RECIPE, INPUTS, overwrite=True)  # --overwrite, interrupted and given again
    assert fused.exists()
    for recipe, inputs, what in (({"seed": 1}, INPUTS, "seed"), (RECIPE, {"data": "b"}, "data"), (RECIPE, {}, "data")):
        with pytest.raises(UserError, match=f"unfinished run with other {what};"):
            output.claim(recipe, inputs, overwrite=False)
    assert fused.exists()
    output.claim({"seed": 1}, INPUTS, overwrite=True)
    assert not fused.exists()


def test_finished_run_stays_until_the_next_is_complete(tmp_path):
    """Catches a finished run that goes when its successor begins, and remains of it that stay for ever."""
    published(tmp_path / "run")
    with pytest.raises(UserError, match="already holds a run"):
        Output(tmp_path / "run").require_usable([], overwrite=False)
    Output(tmp_path / "run").require_usable([], overwrite=True)
    claimed(tmp_path / "run")
    assert (tmp_path / "run" / "report.html").read_text() == "first"
    published(tmp_path / "other")
    (tmp_path / "run.work" / "report.html").write_text("second")
    Output(tmp_path / "run").publish()
    assert (tmp_path / "run" / "report.html").read_text() == "second"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["other", "run"]
