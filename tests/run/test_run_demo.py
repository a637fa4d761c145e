"""The whole chain at its smallest: pretrain, fuse, two stages, judge, report; resuming, refusing, planning."""

from __future__ import annotations

import json

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from ultrafuser.config import load_recipe
from ultrafuser.data.dataset import encode_dataset
from ultrafuser.errors import UserError
from ultrafuser.run import models as models_module
from ultrafuser.run.demo import FAST, run_demo
from ultrafuser.run.materials import gather
from ultrafuser.run.plan import make_plan, print_plan
from ultrafuser.run.recipe import run_recipe
from ultrafuser.sandbox import levels


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run_demo(tmp_path_factory.mktemp("demo") / "run", 0, True)


def test_a_machine_that_can_run_no_programs_is_told_before_anything_is_trained(tmp_path, monkeypatch):
    """Catches a demo that fails when it comes to judge code, after all the training."""
    monkeypatch.setattr(levels, "works", lambda level: False)
    with pytest.raises(UserError, match="generated programs cannot be run here"):
        run_demo(tmp_path / "run", 0, True)
    assert not any(tmp_path.iterdir())


def test_demo_leaves_every_model_every_score_and_a_report(finished):
    """Catches a step that is skipped, a model that is not judged, a report with parts missing."""
    results = json.loads((finished / "results.json").read_text())
    names = [row["model"] for row in results["table"]["rows"]]
    expected = ["base", "text", "code", "math", "average merging", "fused, untrained gate", "fused, stage 1: gate"]
    assert [name for name in expected if name not in names] == []
    for part in ("base", "specialists/text", "specialists/code", "specialists/math", "average", "fused", "model-gate", "model"):
        assert (finished / part / "config.json").exists(), part
    records = json.loads((finished / "scores" / "stage-joint.json").read_text())["records"]
    assert {record["domain"] for record in records} == {"text", "code", "math", "mixed"}
    page = (finished / "report.html").read_text()
    assert "<svg" in page and "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    assert "mean: without mixed" in page and "\n\nmean: without mixed\n\n" in (finished / "results.md").read_text()
    assert (finished / "tokens.svg").read_text().startswith("<svg")


def test_gate_stage_left_the_specialists_alone_and_the_joint_stage_did_not(finished):
    """Stage 1 moves the gate only, stage 2 everything (paper, section 3)."""
    fused, gate, joint = (
        AutoModelForCausalLM.from_pretrained(finished / name).state_dict() for name in ("fused", "model-gate", "model")
    )
    for name, tensor in fused.items():
        assert torch.equal(tensor, gate[name]) != (".gate." in name), name
    assert not any(torch.equal(gate[name], joint[name]) for name in gate if name.endswith("proj.weight"))


def test_a_killed_run_goes_on_where_it_stopped(finished, tmp_path, monkeypatch):
    """Nothing that is done is done again, and the result is that of a run in one go; meanwhile nobody else runs there."""
    out, work = tmp_path / "run", tmp_path / "run.work"

    def interrupted(*args, **options):
        for seed in (0, 1):
            with pytest.raises(UserError, match="another run is going on there"):
                run_demo(out, seed, True, overwrite=True)
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(models_module, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_demo(out, 0, True)
    assert [file.name for file in tmp_path.iterdir()] == ["run.work"]
    stamp = (work / "specialists" / "math" / "config.json").stat().st_mtime_ns
    assert not out.exists()
    run_demo(out, 0, True)
    assert not work.exists()
    assert (out / "specialists" / "math" / "config.json").stat().st_mtime_ns == stamp
    again = AutoModelForCausalLM.from_pretrained(out / "model").state_dict()
    for name, tensor in AutoModelForCausalLM.from_pretrained(finished / "model").state_dict().items():
        assert torch.equal(tensor, again[name]), name


def test_outputs_are_refused_unless_they_are_the_runs_own(finished, tmp_path):
    """A finished run, another recipe's unfinished run and somebody else's files are never overwritten by accident."""
    with pytest.raises(UserError, match="already holds a run"):
        run_demo(finished, 0, True)
    (tmp_path / "diary.txt").write_text("dear diary")
    with pytest.raises(UserError, match="already exists"):
        run_demo(tmp_path, 0, True, overwrite=True)
    assert (tmp_path / "diary.txt").read_text() == "dear diary"
    other = tmp_path / "other.work"
    other.mkdir()
    (other / "recipe.json").write_text((finished / "recipe.json").read_text())
    with pytest.raises(UserError, match=r"other\.work: holds an unfinished run with other output, seed"):
        run_demo(tmp_path / "other", 1, True)


def test_plan_says_what_the_run_then_does(finished, capsys):
    """Catches a figure of --dry-run that is not that of the run: parameters, batch, tokens, conversations, disk."""
    recipe = load_recipe("miniworld", ["output=/nowhere/run", *FAST])
    print_plan(recipe, Console(width=120))
    printed = capsys.readouterr().out
    plan = make_plan(recipe)
    model = AutoModelForCausalLM.from_pretrained(finished / "model")
    gate = sum(parameter.numel() for parameter in model.model.gate.parameters())
    assert plan.sizes.total() == (sum(parameter.numel() for parameter in model.parameters()), gate)
    assert f"the gate {gate / 1e3:.3g}k" in printed
    one = AutoModelForCausalLM.from_pretrained(finished / "specialists" / "code")
    assert plan.sizes.specialist(1) == sum(parameter.numel() for parameter in one.parameters())
    materials = gather(recipe)
    options = {"domains": materials.domains(), "max_length": 256, "progress": False}
    dataset = encode_dataset(materials.train, AutoTokenizer.from_pretrained(finished / "model"), **options)
    mean = len(dataset.tokens) / len(dataset)  # every domain has 200
    assert plan.mean_tokens() == pytest.approx(mean)
    settings = json.loads((finished / "model" / "training" / "settings.json").read_text())
    rows = [line.split() for line in printed.splitlines() if line.strip().startswith(("gate ", "joint "))]
    for row, stage in zip(rows, settings["stages"].values(), strict=True):
        batch = stage["per_domain"] * len(settings["domains"])
        assert row[3:6] == [str(stage["steps"]), str(batch), f"{stage['steps'] * batch * mean / 1e3:.3g}k"]
    assert "text 200, code 200, math 200, mixed 200 training" in printed
    weights = {file.stat().st_ino: file.stat().st_size for file in finished.rglob("*.safetensors")}
    assert plan.sizes.kept() == pytest.approx(sum(weights.values()), rel=0.02)  # beside numbers a file holds their names


def write_data(folder, count=40):
    """Three small files, one with a flagged record."""
    for domain, word in (("text", "walk"), ("code", "loop"), ("math", "sum")):
        rows = [{"domain": domain, "prompt": f"{word} {i}?", "response": f"{word} {word} {i} {i}"} for i in range(count)]
        rows[0]["flag"] = True
        (folder / f"{domain}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_recipe_on_files_reports_heldout_losses(tmp_path):
    """The course of real-small.yaml on tiny data: byte-level BPE, specialists from scratch, held-out loss."""
    write_data(tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"""
name: tiny
output: {tmp_path / "out"}
specialists: [{{name: text, template: ultralm2}}, {{name: code, template: codellama}}, {{name: math, template: alpaca}}]
data: {{directory: {tmp_path}, train: [text.jsonl, code.jsonl, math.jsonl], heldout_share: 0.2, leave_out: flag, max_length: 256}}
pretrain:
  vocab_size: 320
  geometry: {{hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 2}}
  base: {{steps: 1, per_domain: 2, learning_rate: 0.001}}
  specialist: {{steps: 1, per_domain: 2, learning_rate: 0.001}}
train:
  stages:
    - {{name: gate, moves: gate, steps: 1, per_domain: 2}}
    - {{name: joint, moves: all, steps: 1, per_domain: 2}}
evaluation: {{samples_per_domain: 1, max_new_tokens: 4}}
""")
    out = run_recipe(load_recipe(recipe))
    table = json.loads((out / "results.json").read_text())["table"]
    assert "nats" in table["title"]
    assert (out / "report.html").exists()
