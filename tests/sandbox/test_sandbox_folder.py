"""The working directory: what it holds is counted, and deleted, however a program hides it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ultrafuser.sandbox.folder import empty, working_folder
from ultrafuser.sandbox.inside import watch
from ultrafuser.sandbox.inside.watch import MOST_FILES, holds_at_most

DEEP = 1200  # deeper than Python's recursion, and in one path longer than the kernel takes


def dig(folder: Path) -> None:
    """Directories in directories, with a file at the bottom."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(DEEP):
        os.mkdir("deep", dir_fd=here)
        inner = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=here))
    os.close(here)


def test_what_a_folder_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches files that are not counted, and those of another place that are, by a link."""
    monkeypatch.chdir(tmp_path)
    assert holds_at_most(0)
    Path("link").symlink_to("/usr")
    assert holds_at_most(2**16)
    Path("a/b").mkdir(parents=True)
    Path("a/b/file").write_bytes(b"x" * 2**20)
    assert holds_at_most(2**20 + 2**16) and not holds_at_most(2**20 - 2**16)


def test_many_empty_files_are_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches files that take no room of the disk, but of the kernel, being free."""
    monkeypatch.chdir(tmp_path)
    for i in range(MOST_FILES):
        Path(str(i)).touch()
    assert holds_at_most(2**30)
    Path("one more").touch()
    assert not holds_at_most(2**30)


def test_deep_directories(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a directory too deep to be looked into counting as empty, or ending us when it is deleted."""
    with working_folder() as folder:
        dig(folder)
        monkeypatch.chdir(folder)
        assert not holds_at_most(2**30)
        monkeypatch.undo()
    assert not folder.exists()


def test_a_look_that_takes_long_is_not_interrupted_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches looks piling up in each other, so that a folder that is slow to look into keeps its program's time from ending."""
    under_way, most = [0], [0]

    def slow_look(limit: int) -> bool:
        under_way[0] += 1
        most[0] = max(most[0], under_way[0])
        end = time.monotonic() + 0.25
        while time.monotonic() < end:
            pass
        under_way[0] -= 1
        return True

    monkeypatch.setattr(watch, "holds_at_most", slow_look)
    before = signal.getsignal(signal.SIGALRM)
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        ended = watch.wait(sleeper.pid, {"wall_seconds": 0.6, "cpu_seconds": 1.0, "folder_bytes": 0})
    signal.signal(signal.SIGALRM, before)
    assert ended == (-signal.SIGKILL, True) and most[0] <= 1  # 0 where the machine stood still until time was up


def test_nothing_outside_is_deleted(tmp_path: Path) -> None:
    """Catches a link being followed when a working directory is deleted."""
    (tmp_path / "outside/inner").mkdir(parents=True)
    (tmp_path / "outside/inner/file").touch()
    with working_folder() as folder:
        (folder / "a/b").mkdir(parents=True)
        (folder / "a/b/link").symlink_to(tmp_path / "outside")
        (folder / "link").symlink_to(tmp_path / "outside")
        (folder / "a/locked").mkdir(mode=0)
        empty(folder)
    assert (tmp_path / "outside/inner/file").exists() and not folder.exists()
