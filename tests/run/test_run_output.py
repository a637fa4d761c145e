"""Where a run may write, what it may replace, and when."""

from __future__ import annotations

import pytest

from ultrafuser.errors import UserError
from ultrafuser.run.output import Output

RECIPE, INPUTS = {"seed": 0}, {"data": "a"}


def claim(output, recipe=RECIPE, inputs=INPUTS):
    """Take ``output`` and end with nothing published."""
    with output.claimed(recipe, inputs):
        pass


def claimed(folder, **options):
    """An output with an unfinished run in it."""
    output = Output(folder, **options)
    claim(output)
    (output.work / "fused").mkdir()
    return output


def published(folder, what="first", **options):
    """An output with a finished run in it."""
    output = claimed(folder, **options)
    (output.work / "report.html").write_text(what)
    output.publish()
    return output


@pytest.mark.parametrize("place", ["good.jsonl/x", "good.jsonl/x/y", "/proc/x/y"])
def test_place_where_nothing_can_be_made_is_one_line(tmp_path, place):
    """Catches a traceback of NotADirectoryError or FileNotFoundError, and directories left by the attempt."""
    (tmp_path / "good.jsonl").write_text("{}")
    with pytest.raises(UserError, match="cannot be created") as error:
        Output(tmp_path / place, overwrite=True).require_usable()
    assert "\n" not in str(error.value)
    assert [file.name for file in tmp_path.iterdir()] == ["good.jsonl"]


def test_asking_leaves_nothing(tmp_path):
    """Catches parents that stay when a later mistake ends the run."""
    Output(tmp_path / "a" / "b").require_usable()
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("read", ["run/model", "run", "run.work/text", "run/data.jsonl"])
def test_what_is_read_is_never_replaced(tmp_path, read):
    """Catches --overwrite that deletes the specialists or the data of the very run."""
    published(tmp_path / "run")
    claimed(tmp_path / "run", overwrite=True)
    (tmp_path / read).mkdir(parents=True, exist_ok=True)
    with pytest.raises(UserError, match="which is read from"):
        Output(tmp_path / "run", [tmp_path / read], overwrite=True).require_usable()


@pytest.mark.parametrize("place", ["run", "run.work"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_other_peoples_files_stay(tmp_path, place, overwrite):
    """Catches --overwrite that replaces a directory, or a file, that no run has made."""
    (tmp_path / place).mkdir()
    (tmp_path / place / "diary.txt").write_text("dear diary")
    with pytest.raises(UserError, match="already exists and is no run's output"):
        Output(tmp_path / "run", overwrite=overwrite).require_usable()
    with pytest.raises(UserError, match="already exists and is no run's output"):
        Output(tmp_path / place / "diary.txt", overwrite=overwrite).require_usable()


def test_unfinished_run_is_gone_on_with_by_the_same_run_only(tmp_path):
    """Catches models of other data or another recipe taken for this run's own, and lost ones that are this run's."""
    fused = claimed(tmp_path / "run").work / "fused"
    output, replacing = (Output(tmp_path / "run", overwrite=overwrite) for overwrite in (False, True))
    claim(output)
    assert fused.exists()
    claim(replacing)  # --overwrite, interrupted and given again
    assert fused.exists()
    for recipe, inputs, what in (({"seed": 1}, INPUTS, "seed"), (RECIPE, {"data": "b"}, "data"), (RECIPE, {}, "data")):
        with pytest.raises(UserError, match=f"unfinished run with other {what};"):
            claim(output, recipe, inputs)
    assert fused.exists()
    claim(replacing, {"seed": 1})
    assert not fused.exists()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_run_that_is_going_on_is_left_alone(tmp_path, overwrite, seed):
    """Catches two runs in one work directory, and --overwrite that removes what a living run has made."""
    output = Output(tmp_path / "new" / "run")
    with output.claimed(RECIPE, INPUTS):
        (output.work / "fused").mkdir()
        with pytest.raises(UserError, match="run: another run is going on there; wait for its end"):
            claim(Output(output.folder, overwrite=overwrite), {"seed": seed})
        assert (output.work / "fused").exists()
        output.publish()
    assert [file.name for file in output.folder.parent.iterdir()] == ["run"]


def test_a_run_that_has_just_ended_is_not_replaced(tmp_path):
    """Catches a run, begun while another went on, that puts itself in place of that other's result unasked."""
    second = Output(tmp_path / "run")
    second.require_usable()
    published(tmp_path / "run")
    with pytest.raises(UserError, match="already holds a run"):
        claim(second)
    assert not second.work.exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_came_meanwhile_stays(tmp_path, overwrite):
    """Catches somebody's files in OUT, made while the run went on, that go when it ends; then the run must not be lost either."""
    output = claimed(tmp_path / "run", overwrite=overwrite)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "diary.txt").write_text("dear diary")
    with pytest.raises(
        UserError, match=r"run: something came there meanwhile.* stays in .*run\.work; move .* same command again"
    ):
        output.publish()
    assert (tmp_path / "run" / "diary.txt").read_text() == "dear diary" and (output.work / "fused").exists()
    (tmp_path / "run").rename(tmp_path / "diary")
    claim(output)
    output.publish()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["diary", "run"]


def test_finished_run_stays_until_the_next_is_complete(tmp_path):
    """Catches a finished run that goes when its successor begins, and remains of it that stay for ever."""
    published(tmp_path / "run")
    with pytest.raises(UserError, match="already holds a run"):
        Output(tmp_path / "run").require_usable()
    replacing = claimed(tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "report.html").read_text() == "first"
    (tmp_path / "run.work" / "report.html").write_text("second")
    replacing.publish()
    assert (tmp_path / "run" / "report.html").read_text() == "second"
    assert [file.name for file in tmp_path.iterdir()] == ["run"]
