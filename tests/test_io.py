"""Files and directories that appear whole or not at all, also beside what killed processes left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ultrafuser.errors import UserError
from ultrafuser.io import new_directory, new_file, require_new, write_text

# A process that is killed when it calls the function of `os` in argv[2] for the time in argv[3].
KILLED = """
import os, signal, sys
sys.argv[0] = "ultrafuser"  # so that nobody imports torch
from ultrafuser.io import new_directory, new_file, require_new, write_text
kind, name, time, out = sys.argv[1:]
own, calls = getattr(os, name), []
def killed(*args):
    calls.append(args)
    if len(calls) == int(time):
        os.kill(os.getpid(), signal.SIGKILL)
    own(*args)
setattr(os, name, killed)
if kind == "text":
    write_text(out, "half")
elif kind == "file":
    with new_file(out, overwrite=True) as part:
        part.write_text("half")
else:
    with new_directory(out, overwrite=True) as part:
        (part / "a").mkdir()
        (part / "a" / "b").write_text("half")
"""


def killed(kind: str, function: str, time: int, out: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, kind, function, str(time), str(out)], check=False)
    assert done.returncode == -9


def write(kind: str, out: Path) -> None:
    if kind == "text":
        write_text(out, "whole")
    elif kind == "file":
        with new_file(out, overwrite=True) as part:
            part.write_text("whole")
    else:
        with new_directory(out, overwrite=True) as part:
            (part / "b").write_text("whole")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("kind", "function"), [("text", "replace"), ("file", "replace"), ("directory", "rename")])
def test_what_a_killed_process_left_is_removed(kind: str, function: str, tmp_path: Path) -> None:
    """Catches hidden parts that stay beside an output for ever, and a neighbour's taken for them."""
    out, others = tmp_path / "out[1]", [".out[1].x.12345678.part", ".out1.12345678.part", ".out[1].mine.part"]
    for name in others:
        (tmp_path / name).touch()
    killed(kind, function, 1, out)
    assert len(names(tmp_path)) == len(others) + 1 and not out.exists()
    write(kind, out)
    assert names(tmp_path) == sorted([*others, out.name])
    assert (out / "b" if out.is_dir() else out).read_text() == "whole"


@pytest.mark.parametrize("kind", ["text", "file", "directory"])
def test_what_is_being_written_stays(kind: str, tmp_path: Path) -> None:
    """Catches the part of a process that lives, taken for one that was left."""
    start = new_directory if kind == "directory" else new_file
    with start(tmp_path / "out", overwrite=True) as first:
        write(kind, tmp_path / "out")
        assert names(tmp_path) == sorted([first.name, "out"])


def test_killed_between_two_names(tmp_path: Path) -> None:
    """Catches an old directory that is lost, or stays for ever, when a process dies between moving it away and the new one."""
    out = tmp_path / "out"
    write("directory", out)
    killed("directory", "rename", 2, out)
    (old,) = (path for path in tmp_path.iterdir() if path.suffix == ".old")
    assert (old / "b").read_text() == "whole" and not out.exists()
    with pytest.raises(ZeroDivisionError), new_directory(out):
        1 / 0  # noqa: B018
    assert names(tmp_path) == [old.name]
    write("directory", out)
    assert names(tmp_path) == ["out"]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    """Catches an old output that is lost, or parts of a new one, when the writing ends in an error."""
    for kind in ("file", "directory"):
        write(kind, tmp_path / kind)
    for new in (new_file, new_directory):
        with pytest.raises(ZeroDivisionError), new(tmp_path / new.__name__.removeprefix("new_"), overwrite=True):
            1 / 0  # noqa: B018
    assert names(tmp_path) == ["directory", "file"] and names(tmp_path / "directory") == ["b"]
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(UserError, match="is a directory; give the name of a file"), new_file(tmp_path / "closed"):
        pass
    with pytest.raises(UserError, match="cannot be created"), new_file(tmp_path / "file" / "x"):
        pass


def test_what_is_read_and_where_one_stands_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an output that replaces an input, what holds one (by a link too), or the current directory."""
    for name in ("in/own", "out", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "in" / "own")
    monkeypatch.chdir(tmp_path / "elsewhere")
    for out in ("../in/own", "../in", "../link", "..", "."):
        with pytest.raises(UserError, match=r"is or holds .*; choose another output"):
            require_new(out, overwrite=True, inputs=[tmp_path / "link", "owner/name"])
    assert require_new("../out", overwrite=True, inputs=["../in/own"]) == Path("../out")
    assert require_new("../in/own/new", inputs=["../in/own"]) == Path("../in/own/new")
