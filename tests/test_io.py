"""Files and directories that appear whole or not at all, also beside what killed processes left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ultrafuser.errors import UserError
from ultrafuser.io import (
    is_directory,
    is_file,
    names_beside,
    new_directory,
    new_file,
    read_json,
    require_creatable,
    require_new,
    require_outside,
    user_path,
    write_text,
)

LONG = "x" * 300  # no name of a file can be so long

# A process that is killed when it calls the function of `os` in argv[2] for the time in argv[3].
KILLED = """
import os, signal, sys
sys.argv[0] = "ultrafuser"  # so that nobody imports torch
from pathlib import Path
from ultrafuser.io import new_directory, new_file, require_creatable, write_text
kind, name, time, out = sys.argv[1:]
own, calls = getattr(os, name), []
def killed(*args, **given):
    calls.append(args)
    if len(calls) == int(time):
        os.kill(os.getpid(), signal.SIGKILL)
    own(*args, **given)
setattr(os, name, killed)
if kind == "text":
    write_text(out, "half")
elif kind == "probe":
    require_creatable(Path(out))
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
    killed("directory", "rename", 3, out)  # the first finds the place taken, the second moves the old one away
    (old,) = (path for path in tmp_path.iterdir() if path.suffix == ".old")
    assert (old / "b").read_text() == "whole" and not out.exists()
    with pytest.raises(ZeroDivisionError), new_directory(out):
        1 / 0  # noqa: B018
    assert names(tmp_path) == [old.name]
    write("directory", out)
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("place", ["out", "none/out"])
def test_a_killed_trial_is_removed(place: str, tmp_path: Path) -> None:
    """Catches the directory with which a place is tried, if its process is killed there: under another name it stays for ever."""
    killed("probe", "rmdir", 1, tmp_path / place)
    assert len(names(tmp_path)) == 1
    require_creatable(tmp_path / place)
    assert names(tmp_path) == []


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_a_part_is_not_lost_before_it_is_locked(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a part that another writer takes for left behind, since it is there but not yet locked, and one never locked."""
    own = os.open

    def late(path: Path, flags: int, *more: int) -> int:
        if flags == os.O_RDONLY:  # only to lock it
            monkeypatch.setattr(os, "open", own)
            write(kind, tmp_path / "out")
        return own(path, flags, *more)

    monkeypatch.setattr(os, "open", late)
    start = new_directory if kind == "directory" else new_file
    with start(tmp_path / "out", overwrite=True) as part:
        assert os.open is own and part.exists()
        write(kind, tmp_path / "out")
        assert part.exists()


WRITER = """
import sys
sys.argv[0] = "ultrafuser"
from ultrafuser.io import new_directory, write_text
for number in range(int(sys.argv[2])):
    write_text(sys.argv[1] + "/file", str(number))
    with new_directory(sys.argv[1] + "/directory", overwrite=True) as part:
        (part / "b").write_text(str(number))
"""


def test_writers_at_once(tmp_path: Path) -> None:
    """Catches writers to one place that remove each other's parts, or whose renames meet: each of them ends in a traceback."""
    command = [sys.executable, "-c", WRITER, str(tmp_path), "300"]
    writers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [writer.communicate()[1] for writer in writers] == [""] * 3
    assert names(tmp_path) == ["directory", "file"]
    assert (tmp_path / "file").read_text() == (tmp_path / "directory" / "b").read_text() == "299"


@pytest.mark.parametrize("overwrite", [True, False])
def test_another_is_quicker(overwrite: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a traceback where another process has just put its directory, and one that is replaced although nobody said so."""
    own, out = os.rename, tmp_path / "out"

    def late(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "rename", own)
        write("directory", out)
        own(source, target)

    monkeypatch.setattr(os, "rename", late)
    mistakes = []
    try:
        with new_directory(out, overwrite=overwrite) as part:
            (part / "b").write_text("mine")
    except UserError as error:
        mistakes.append(str(error))
    assert names(tmp_path) == ["out"] and (out / "b").read_text() == ("mine" if overwrite else "whole")
    assert mistakes == ([] if overwrite else [f"{out}: already exists; choose another output or give --overwrite"])


def test_a_link_is_replaced(tmp_path: Path) -> None:
    """Catches a link that stays beside the output under a hidden name, and one that leads to what is then removed."""
    write("directory", tmp_path / "far")
    (tmp_path / "out").symlink_to("far")
    write("directory", tmp_path / "out")
    assert names(tmp_path) == ["far", "out"] and not (tmp_path / "out").is_symlink() and names(tmp_path / "far") == ["b"]


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


def test_paths_as_a_shell_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a traceback for the home of nobody, a directory that is called ``~``, and an input at home that is replaced."""
    (tmp_path / "home" / "in").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert user_path("~/a") == tmp_path / "home" / "a" and user_path("~nosuchuser/a") == Path("~nosuchuser/a")
    assert require_new("~/a") == tmp_path / "home" / "a"
    for start, out in ((new_file, "~/file"), (new_directory, Path("~/directory"))):
        with start(out) as part:  # type: ignore[operator]
            (part if start is new_file else part / "b").write_text("whole")
        with pytest.raises(UserError, match="already exists"), start(out):  # type: ignore[operator]
            pass
    assert names(tmp_path) == ["home"] and names(tmp_path / "home") == ["directory", "file", "in"]
    with pytest.raises(UserError, match="is or holds ~/in, which is read from"):
        require_new("home", overwrite=True, inputs=["~/in"])
    with pytest.raises(UserError, match="lies in"):
        require_outside(Path("~/in/page.html"), tmp_path / "home" / "in")


def test_names_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches pathlib's OSError for what is too long to be a name, such as a prompt that stands in a path's place."""
    monkeypatch.chdir(tmp_path)
    for given in (LONG, f"{LONG}/a", "a\0b"):
        assert not is_file(given) and not is_directory(Path(given)) and require_new("out", inputs=[given]) == Path("out")
    assert names_beside(Path(LONG) / "a") == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 100_000, "not valid JSON (nested too deeply)"),
        (f'{{"a": {"1" * 5000}}}', "not valid JSON (a number has too many digits)"),
        ("{\n}\n}", "not valid JSON (extra data at line 3 character 1)"),
        (b"caf\xe9", "not valid JSON (byte 4 is not UTF-8)"),
    ],
)
def test_broken_json(text: str | bytes, told: str, tmp_path: Path) -> None:
    """Catches a traceback for what `json.loads` refuses with another error than its own."""
    file = tmp_path / "a.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        read_json(file)
    assert str(caught.value) == f"{file}: {told}"
    file.write_text(json.dumps({"a": ["é", 10**4000]}))
    assert read_json(file) == {"a": ["é", 10**4000]}
    with pytest.raises(UserError, match=r"cannot be read \(Is a directory\)"):
        read_json(tmp_path)
