"""facts.py: what a report says of how it was made."""

from __future__ import annotations

import subprocess
import sys

import pytest

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
