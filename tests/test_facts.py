"""facts.py: what a report says of how it was made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ultrafuser import facts

SHOWN = "from ultrafuser.facts import run_facts; print(run_facts(3)['command'])"


@pytest.mark.parametrize(
    ("started", "told"),
    [
        (["script.py"], "script.py demo --out 'a b'"),
        (["-m", "script"], "python -m script demo --out 'a b'"),
        (["-m", "package"], "python -m package demo --out 'a b'"),
    ],
)
def test_the_command_can_be_typed_again(started, told, tmp_path):
    """Catches a command of which only ``__main__.py`` is told, and arguments that fall apart."""
    (tmp_path / "package").mkdir()
    for file in ("script.py", "package/__main__.py"):
        (tmp_path / file).write_text(SHOWN)
    command = [sys.executable, *started, "demo", "--out", "a b"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == told


def test_the_commit_is_that_of_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches the commit of somebody's repository in which the package is only installed, and changes that are not told."""

    def git(*words: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        return subprocess.run(["git", *who, *words], cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    own = tmp_path / "lib" / "facts.py"
    own.parent.mkdir()
    own.touch()
    monkeypatch.setattr(facts, "__file__", str(own))
    git("init")
    (tmp_path / "theirs").touch()
    git("add", "theirs")
    git("commit", "-m", "theirs")
    assert facts.commit() == "unknown"
    git("add", "lib")
    git("commit", "-m", "ours")
    assert facts.commit() == git("rev-parse", "HEAD")[:12]
    own.write_text("changed")
    assert facts.commit() == git("rev-parse", "HEAD")[:12] + " + changes"
