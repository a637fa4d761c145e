"""README's commands: each exists as it is written there, and those that need no download and no hours run, on tiny models."""

from __future__ import annotations

import gzip
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from benchmark_rows import write_test_data
from tiny import tiny_specialist
from ultrafuser.cli import app
from ultrafuser.data.conversations import read_messages
from ultrafuser.model.fuse import FuseOptions, fuse

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SPECIALISTS = {"prose": "user", "coder": "inst", "solver": "chatml"}  # and their templates
SMALL = ["--steps", "1,1", "--per-domain", "1", "--max-length", "64"]
# What a command is given besides, to be quick. Commands that are not here are only looked at, not run.
EXTRA = {
    "check": [],
    "fuse": ["--gate-hidden-size", "8"],
    "train": SMALL,
    "extract": [],
    "generate": ["--max-new-tokens", "2"],
    "inspect": ["--max-new-tokens", "2"],
    "chat": ["--max-new-tokens", "2"],
    "run": ["--dry-run"],
    "decontaminate": ["--data-dir", "tests"],
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands() -> Iterator[list[str]]:
    """The words of every ``ultrafuser`` command, in blocks and in the text, in order; none with places left open (``..``)."""
    for line in re.findall(r"^ultrafuser .*$|`ultrafuser [^`]*`", README, re.MULTILINE):
        words = shlex.split(line.strip("`"), comments=True)
        if ".." not in words:
            yield words[1:]


COMMANDS = list(commands())


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_is_a_command(words: list[str]) -> None:
    """Catches a command, option or argument in README that the program does not have, or not any more."""
    command = get_command(app).commands[words[0]]  # type: ignore[attr-defined]
    command.make_context(words[0], list(words[1:]))


def test_all_kinds_are_found() -> None:
    """Catches an extraction that finds nothing to test."""
    assert {"check", "fuse", "train", "generate", "chat", "inspect", "run", "extract"} <= {words[0] for words in COMMANDS}
    assert len(blocks("bash")) >= 3 and len(blocks("python")) >= 1 and len(blocks("json")) == 1


def test_make_targets() -> None:
    """Catches a ``make`` target or a file in README that is not there."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"\bmake (\w+)", "\n".join(blocks("bash")))
    assert targets and all(f"\n{target}:" in makefile for target in targets)
    links = [link for link in re.findall(r"\]\(([^)#]+)", README) if "://" not in link]
    configs = re.findall(r"accelerate_configs/\S+?\.yaml", README)
    assert links and configs and all((ROOT / file).exists() for file in links + configs)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that holds everything README's commands speak of and do not make themselves."""
    folder = tmp_path_factory.mktemp("readme")
    own = [tiny_specialist(folder / name, seed=j, template=template) for j, (name, template) in enumerate(SPECIALISTS.items())]
    fuse(own, folder / "runs" / "demo" / "model", options=FuseOptions(gate_hidden_size=8))
    write_test_data(folder / "tests")
    record = json.loads(blocks("json")[0])
    assert [message["role"] for message in read_messages("README", record)] == ["user", "assistant"]
    records = [json.dumps(record | {"domain": domain}) + "\n" for domain in ("text", "code", "math") for _ in range(3)]
    (folder / "train.jsonl").write_text("".join(records))
    (folder / "DIR" / "train").mkdir(parents=True)
    for name, domain in (("dolly_3k", "text"), ("evol_code", "code"), ("gsm8k_train", "math")):
        rows = [json.dumps({"domain": domain, "prompt": f"{domain} {n}", "response": "x"}) + "\n" for n in range(60)]
        (folder / "DIR" / "train" / f"{name}.jsonl.gz").write_bytes(gzip.compress("".join(rows).encode()))
    return folder


def test_commands_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches commands that do not work in README's order, on what the ones before have made."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # a dry run says what it cannot know
    for words in COMMANDS:
        if words[0] not in EXTRA:
            continue
        result = CliRunner().invoke(app, [*words, *EXTRA[words[0]]], input="hello\n/quit\n")
        assert result.exit_code == 0, (words, result.output, result.exception)
    namespace: dict[str, Any] = {}
    for block in blocks("python"):
        exec(block, namespace)
    assert namespace["model"].config.model_type == "ultrafuser"
