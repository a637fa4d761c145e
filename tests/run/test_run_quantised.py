"""Models whose weights are quantised while they are loaded: judged, asked and evaluated as they were trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, BitsAndBytesConfig
from typer.testing import CliRunner

from tiny import tiny_specialist
from ultrafuser.cli import app
from ultrafuser.config import load_recipe
from ultrafuser.data.conversations import read_conversations
from ultrafuser.evaluate.heldout import heldout_loss
from ultrafuser.model.load import load
from ultrafuser.model.quantise import quantised
from ultrafuser.run.recipe import run_recipe

bitsandbytes = pytest.importorskip("bitsandbytes")
DOMAINS = ("text", "code")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in 4 bit, of specialists wide enough for its blocks of 64 weights."""
    folder = tmp_path_factory.mktemp("quantised")
    for seed, name in enumerate(DOMAINS):
        tiny_specialist(folder / name, seed=seed, hidden_size=64, intermediate_size=128)
    for file, numbers in (("train.jsonl", range(8)), ("data.jsonl", range(8, 16))):
        rows = [{"domain": d, "prompt": f"{d} {i}?", "response": f"{d} {i} {i}"} for d in DOMAINS for i in numbers]
        (folder / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text(f"""
name: tiny
output: {folder / "out"}
specialists: [{{name: text, path: {folder / "text"}}}, {{name: code, path: {folder / "code"}}}]
data: {{train: [{folder / "train.jsonl"}], heldout: [{folder / "data.jsonl"}], domains: [text, code], max_length: 64}}
train: {{load_in: 4bit, stages: [{{name: gate, moves: gate, steps: 2, per_domain: 2}}]}}
evaluation: {{samples_per_domain: 1, max_new_tokens: 2}}
""")
    run_recipe(load_recipe(folder / "recipe.yaml"))
    return folder


@pytest.mark.parametrize(
    ("row", "folder"), [("text", "text"), ("average merging", "out/average"), ("fused, stage 1: gate", "out/model")]
)
def test_run_judges_in_the_precision_it_trains_in(place: Path, row: str, folder: str) -> None:
    """Catches a run in 4 bit that loads whole models to judge them, and so fails at its end where only 4 bit fits."""
    rows = {one["model"]: one["cells"] for one in json.loads((place / "out/results.json").read_text())["table"]["rows"]}
    heldout = read_conversations(place / "data.jsonl")
    found = {domain: rows[row][domain]["value"] for domain in DOMAINS}
    for load_in, same in (("4bit", True), (None, False)):
        model, tokenizer = load(place / folder, load_in=load_in)
        losses = heldout_loss(model, tokenizer, heldout, max_length=64, progress=False)
        assert (found == pytest.approx({domain: loss.mean for domain, loss in losses.items()}, abs=1e-5)) is same, load_in


@pytest.mark.parametrize(("load_in", "kind"), [("4bit", "Linear4bit"), ("8bit", "Linear8bitLt"), (None, "Linear")])
def test_only_the_specialists_linear_layers_are_quantised(place: Path, load_in: str | None, kind: str) -> None:
    """Catches a quantised gate or table, and an option that does nothing."""
    model, _ = load(place / "out/model", load_in=load_in)
    kinds = {name: type(module).__name__ for name, module in model.named_modules() if "Linear" in type(module).__name__}
    assert {kinds.pop(name) for name in [*kinds] if name.endswith("_proj")} == {kind}
    assert sorted(kinds) == ["lm_head", "model.gate.linear_in", "model.gate.linear_out"] and set(kinds.values()) == {"Linear"}


@pytest.mark.parametrize(
    "ask",
    [
        ["generate", "MODEL", "text 1?", "--max-new-tokens", "3", "--temperature", "0"],
        ["chat", "MODEL", "--max-new-tokens", "3"],
        ["inspect", "MODEL", "text 1?", "--max-new-tokens", "3"],
        ["eval", "MODEL", "--tasks", "miniworld_text", "--limit", "1", "--max-new-tokens", "3", "--out", "OUT"],
    ],
    ids=lambda ask: ask[0],
)
def test_a_quantised_model_answers(ask: list[str], place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a model that is moved after loading, which bitsandbytes refuses, and an option that a command does not hand on."""
    asked = []
    monkeypatch.setattr(
        "ultrafuser.model.load.quantised", lambda load_in, *rest: asked.append(load_in) or quantised(load_in, *rest)
    )
    for load_in in ("8bit", "4bit"):
        places = {"MODEL": str(place / "out/model"), "OUT": str(tmp_path / load_in)}
        command = [places.get(word, word) for word in ask]
        result = CliRunner().invoke(app, [*command, "--device", "cpu", "--load-in", load_in], input="text 1?\n")
        assert result.exit_code == 0, result.output
    assert asked == ["8bit", "4bit"]


@pytest.mark.parametrize("kind", [AutoModelForCausalLM, AutoModel])
@pytest.mark.parametrize("bits", [{"load_in_4bit": True}, {"load_in_8bit": True}], ids=lambda bits: next(iter(bits)))
def test_the_gate_stays_whole_however_one_quantises(place: Path, kind: Any, bits: dict[str, bool]) -> None:
    """Catches a gate that is quantised where nobody names what is not to be: it computes with its weights as they are."""
    model = kind.from_pretrained(place / "out/model", quantization_config=BitsAndBytesConfig(**bits))
    gates = {name: type(layer).__name__ for name, layer in model.named_modules() if "gate.linear" in name}
    assert set(gates.values()) == {"Linear"} and len(gates) == 2
    assert any(type(layer).__name__.startswith("Linear") and "bit" in type(layer).__name__ for layer in model.modules())
    assert model(input_ids=torch.tensor([[5, 6, 7]]), output_gate_weights=True).gate_weights.shape == (1, 3, 2)


def test_8_bit_is_quiet(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Catches a warning at every layer of every step, which buries all that is told."""
    model, _ = load(place / "text", load_in="8bit")
    model(input_ids=torch.tensor([[5, 6, 7]]))
    assert [record.getMessage() for record in caplog.records if "MatMul8bitLt" in record.getMessage()] == []


def test_missing_bitsandbytes_is_one_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an import error deep inside transformers."""
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else find(name, *rest))
    result = CliRunner().invoke(app, ["generate", str(place / "out/model"), "text 1?", "--load-in", "4bit"])
    assert result.exit_code == 2
    assert result.output.strip() == "error: --load-in 4bit needs bitsandbytes; install it with: pip install 'ultrafuser[quant]'"
