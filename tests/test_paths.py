"""Paths as users write them, from the command line on: every command takes them as a shell does, to read and to write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tiny import TEMPLATES, tiny_specialist
from ultrafuser.cli import app

LONG = "x" * 300  # no name of a file can be so long


@pytest.mark.parametrize("place", ["~nosuchuser/a", LONG, f"{LONG}/a", f"./{LONG}/a"])
@pytest.mark.parametrize(
    "typed",
    [
        "check PLACE PLACE --names a,b",
        "generate PLACE hi",
        "train PLACE --data a.jsonl --out o",
        "run PLACE",
        "synth PLACE",
        "synth report PLACE",
        "synth ultrachat2-small prompts=PLACE --dry-run",
        "decontaminate a.jsonl --against gsm8k --data-dir PLACE --out o.jsonl",
        "decontaminate PLACE.jsonl --against gsm8k --data-dir . --out o.jsonl",
    ],
)
def test_what_can_be_nothing_to_read(typed: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a traceback for the home of nobody and for what is too long to be a name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    Path("a.jsonl").write_text(json.dumps({"domain": "a", "prompt": "q", "response": "r"}) + "\n")
    result = CliRunner().invoke(app, typed.replace("PLACE", place).split())
    assert result.exit_code == 2 and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.output
    assert place.removeprefix("./") in result.stderr and [file.name for file in tmp_path.iterdir()] == ["a.jsonl"]


def test_everything_is_written_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches ``--out=~/x``, which no shell expands, written to a directory that is called ``~``."""
    home, here = tmp_path / "home", tmp_path / "here"
    for folder in (home, here):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    for seed, name in enumerate("ab"):
        tiny_specialist(home / name, seed=seed)
    rows = [{"domain": "a", "prompt": "What is 1?", "response": "It is 1"}] * 4
    (home / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (home / "t.jinja").write_text(TEMPLATES["chatml"])
    judged = []
    monkeypatch.setattr("ultrafuser.evaluate.benchmark.evaluate_models", lambda *args: judged.append(args[-1]) or 1 / 0)
    for typed in (
        "fuse ~/a ~/b --out ~/fused --gate-hidden-size 8",
        "fuse ~/a ~/b --out ~/alike --gate-hidden-size 8 --template=~/t.jinja",
        "extract HOME/fused --specialist a --out ~/again",
        "train ~/fused --data ~/a.jsonl --out ~/trained --steps 1,1 --per-domain 1 --keep-stages",
        "eval ~/trained --tasks gsm8k --out ~/eval",
    ):
        result = CliRunner().invoke(app, typed.replace("HOME", str(home)).split())
        assert result.exit_code == 0 or isinstance(result.exception, ZeroDivisionError), result.output
    assert [settings.out for settings in judged] == [home / "eval"]
    names = ["a", "a.jsonl", "again", "alike", "b", "fused", "t.jinja", "trained", "trained-gate"]
    assert sorted(file.name for file in home.iterdir()) == names
    assert list(here.iterdir()) == []
