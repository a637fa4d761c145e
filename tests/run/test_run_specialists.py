"""`ultrafuser run` on finished specialists of every kind: judged as themselves, mistakes found before anything is lost."""

from __future__ import annotations

import json

import pytest
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from tiny import TEMPLATES, tiny_specialist, tiny_tokenizer
from ultrafuser.cli import app
from ultrafuser.config import load_recipe
from ultrafuser.data.conversations import read_conversations
from ultrafuser.errors import UserError
from ultrafuser.evaluate.heldout import heldout_loss
from ultrafuser.run.plan import make_plan
from ultrafuser.run.recipe import run_recipe

NAMES = ("text", "code", "math")


def write_data(folder, count=12):
    """Training and held-out conversations of three domains."""
    for name in ("train.jsonl", "heldout.jsonl"):
        rows = [{"domain": d, "prompt": f"{name} {d} {i}?", "response": f"{d} {i} {i}"} for d in NAMES for i in range(count)]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_recipe(folder, **evaluation):
    """A recipe whose specialists lie as our own runs leave them: every one in a directory called ``model``."""
    recipe = folder / "recipe.yaml"
    recipe.write_text(f"""
name: tiny
output: {folder / "out"}
specialists:
  - {{name: text, path: {folder / "runs/text/model"}}}
  - {{name: code, path: {folder / "runs/code/model"}}}
  - {{name: math, path: {folder / "runs/math/model"}, template: {folder / "math.jinja"}}}
data: {{directory: {folder}, train: [train.jsonl], heldout: [heldout.jsonl], max_length: 64}}
train:
  mixed_precision: "no"
  stages: [{{name: gate, moves: gate, steps: 2, per_domain: 2}}, {{name: joint, moves: lora, steps: 2, per_domain: 2}}]
evaluation: {json.dumps({"samples_per_domain": 1, "max_new_tokens": 2, **evaluation})}
""")
    return recipe


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A whole specialist, one that is base + adapter, and one whose tokenizer has no template; data and recipe."""
    folder = tmp_path_factory.mktemp("specialists")
    write_data(folder)
    write_recipe(folder)
    tiny_specialist(folder / "runs/text/model", seed=1)
    base = tiny_specialist(folder / "base", seed=2, template="inst")
    model = AutoModelForCausalLM.from_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "up_proj"], init_lora_weights=False))
    adapted.save_pretrained(folder / "runs/code/model")
    bare = tiny_tokenizer()
    bare.chat_template = None
    tiny_specialist(folder / "runs/math/model", seed=3, tokenizer=bare)
    (folder / "math.jinja").write_text(TEMPLATES["chatml"].replace("<|im_end|>", "</s>"))
    return folder


@pytest.fixture(scope="module")
def told(place):
    """What a whole run of the recipe says on standard error."""
    result = CliRunner().invoke(app, ["run", str(place / "recipe.yaml")])
    assert result.exit_code == 0, result.output
    return result.stderr.splitlines()


@pytest.fixture(scope="module")
def finished(place, told):
    """The directory of that run."""
    return place / "out"


def rows_of(out):
    """Model -> domain -> value of the table in results.json."""
    table = json.loads((out / "results.json").read_text())["table"]
    return {row["model"]: {d: row["cells"][d]["value"] for d in NAMES} for row in table["rows"]}


def test_every_specialist_is_judged_as_itself(place, finished):
    """Catches scores of another directory of the same name, an adapter that is left out, a template that is not the recipe's."""
    folders = [place / "runs/text/model", place / "base", place / "runs/math/model"]
    models = [AutoModelForCausalLM.from_pretrained(folder) for folder in folders]
    models[1] = PeftModel.from_pretrained(models[1], place / "runs/code/model").merge_and_unload()
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in folders]
    tokenizers[2].chat_template = (place / "math.jinja").read_text()
    heldout, rows = read_conversations(place / "heldout.jsonl"), rows_of(finished)
    for name, model, tokenizer in zip(NAMES, models, tokenizers, strict=True):
        expected = heldout_loss(model, tokenizer, heldout, max_length=64, progress=False)
        assert rows[name] == pytest.approx({domain: loss.mean for domain, loss in expected.items()}, abs=1e-4), name
    assert len({json.dumps(row) for name, row in rows.items() if not name.startswith("best")}) == len(rows) - 1
    files = ("average", "fused", "stage-gate", "stage-joint", *(f"specialist-{name}" for name in NAMES))
    assert sorted(file.stem for file in (finished / "scores").iterdir()) == sorted(files)


def test_held_out_conversations_too_long_for_the_model(place, tmp_path):
    """Catches a run that ends at its report, or scores of text beyond the positions, where held-out conversations are long."""
    write_data(tmp_path, count=2)
    turns = [{"role": role, "content": "word " * count} for role, count in (("user", 9), ("assistant", 9), ("user", 600))]
    turns.append({"role": "assistant", "content": "yes"})
    long = [{"domain": domain, "messages": turns[first:]} for domain in NAMES for first in (2, 0)]
    file = tmp_path / "heldout.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in long) + file.read_text())
    changes = [f"data.directory={tmp_path}", f"output={tmp_path / 'out'}", "data.max_length=4096"]
    out = run_recipe(load_recipe(place / "recipe.yaml", changes))
    model, tokenizer = (kind.from_pretrained(out / "model") for kind in (AutoModelForCausalLM, AutoTokenizer))
    assert model.config.max_position_embeddings == 512
    fitting = heldout_loss(model, tokenizer, read_conversations(file), max_length=512, progress=False)
    expected = {domain: pytest.approx(loss.mean, abs=1e-4) for domain, loss in fitting.items()}
    assert rows_of(out)["fused, stage 2: joint"] == expected
    assert "word word" in (out / "tokens.svg").read_text()  # of the one that is cut, its first exchange


def test_held_out_conversations_of_which_none_fits(place, tmp_path):
    """Catches a line that calls them training data, or advises a larger max_length where the models have no more positions."""
    write_data(tmp_path, count=2)
    messages = [{"role": "user", "content": "word " * 600}, {"role": "assistant", "content": "yes"}]
    rows = [json.loads(line) for line in (tmp_path / "heldout.jsonl").read_text().splitlines()]
    kept = [row for row in rows if row["domain"] != "text"] + [{"domain": "text", "messages": messages}]
    (tmp_path / "heldout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    line = r"^domain 'text': its only held-out conversation is longer than the models' 512 positions; add shorter ones$"
    for most in (4096, 512):
        changes = [f"data.directory={tmp_path}", f"output={tmp_path / 'out'}", f"data.max_length={most}"]
        with pytest.raises(UserError, match=line):
            run_recipe(load_recipe(place / "recipe.yaml", changes), dry_run=True)


def test_plan_shows_what_is_written_in_the_recipe(place, tmp_path, capsys):
    """Catches brackets in a description or a path that are taken for markup: left out, or a traceback."""
    folder = tmp_path / "[red]"
    changes = ["description='all [/b] of [i]it'", f"output={folder}/out"]
    run_recipe(load_recipe(place / "recipe.yaml", changes), dry_run=True)
    told = capsys.readouterr().out
    assert "tiny all [/b] of [i]it\n" in told and f"disk: {folder}/out will take" in told


def test_plan_knows_the_disk_of_adapters_and_average(place, finished):
    """Catches a figure for the disk that leaves out the models that the fused one is compared with."""
    recipe = load_recipe(place / "recipe.yaml", [f"output={place / 'elsewhere'}"])
    weights = {file.stat().st_ino: file for file in finished.rglob("*.safetensors") if not file.is_relative_to(finished / "base")}
    stored = sum(file.stat().st_size for file in weights.values())
    assert make_plan(recipe).sizes.kept() == pytest.approx(stored, rel=0.1)  # of models so small names are a good part


def test_without_baselines_only_the_stages_are_judged_and_stale_scores_are_not_used(place, tmp_path, monkeypatch):
    """Catches specialists judged because their directories are called ``model``, and scores of a model that was made anew."""
    recipe = load_recipe(place / "recipe.yaml", [f"output={tmp_path / 'out'}", "evaluation.baselines=false"])
    with monkeypatch.context() as broken:
        broken.setattr("ultrafuser.run.recipe.write_results", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_recipe(recipe)
    files = [tmp_path / "out.work" / "scores" / f"stage-{name}.json" for name in ("gate", "joint")]
    gate, joint = (json.loads(file.read_text()) for file in files)
    wrong = {domain: cell | {"value": 0.125} for domain, cell in gate["scores"].items()}
    files[0].write_text(json.dumps(gate | {"scores": wrong}))
    files[1].write_text(json.dumps(joint | {"scores": wrong, "model": "another"}))
    rows = rows_of(run_recipe(recipe))
    assert list(rows) == ["fused, stage 1: gate", "fused, stage 2: joint"]
    assert not (tmp_path / "out" / "average").exists() and not (tmp_path / "out" / "specialists").exists()
    assert set(rows["fused, stage 1: gate"].values()) == {0.125}, "the same model is not judged twice"
    assert rows["fused, stage 2: joint"] == pytest.approx({domain: cell["value"] for domain, cell in joint["scores"].items()})


def everything_in(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def test_mistake_in_the_data_loses_and_leaves_nothing(place, finished, tmp_path):
    """Catches --overwrite that removes a finished run before the data is read, and a first run that leaves half a directory."""
    before = everything_in(finished)
    write_data(tmp_path)
    (tmp_path / "train.jsonl").open("a").write('{"domain": "text", "prompt": "q"}\n')
    changes = [f"data.directory={tmp_path}", f"output={finished}"]
    with pytest.raises(UserError, match=r"line 37: has no 'response'"):
        run_recipe(load_recipe(place / "recipe.yaml", changes), overwrite=True)
    assert everything_in(finished) == before
    with pytest.raises(UserError, match=r"line 37: has no 'response'"):
        run_recipe(load_recipe(place / "recipe.yaml", [changes[0], f"output={tmp_path / 'out'}"]))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["heldout.jsonl", "train.jsonl"]


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(
    ("change", "line"),
    [
        ("specialists.2.template=null", "specialist 'math'.* no chat template"),
        (
            "data.max_length=3",
            "domain 'text': all 12 training conversations are longer than max_length 3; raise it",
        ),
        ("specialists.1.path={folder}/runs/none", "no such directory"),
        ("output={folder}/runs/code", "is or holds .*runs/code/model, which is read from"),
    ],
)
def test_what_can_be_checked_is_checked_before_anything_is_written(place, tmp_path, change, line, dry_run):
    """Catches a mistake that shows only after training, or that --dry-run does not find."""
    changes = [f"output={tmp_path / 'out'}", change.format(folder=place)]
    with pytest.raises(UserError, match=line) as error:
        run_recipe(load_recipe(place / "recipe.yaml", changes), dry_run=dry_run, overwrite=True)
    assert "\n" not in str(error.value)
    assert not any(tmp_path.iterdir())


def test_diverged_training_is_one_line_and_keeps_the_finished_run(place, finished):
    """Catches a model of NaNs that takes the place of a good one, and a traceback in place of a line."""
    before = everything_in(finished)
    result = CliRunner().invoke(app, ["run", str(place / "recipe.yaml"), "train.stages.0.learning_rate=1.0e+38", "--overwrite"])
    assert result.exit_code == 2
    last = result.output.splitlines()[-1]
    assert last.startswith("error: stage 'gate' has diverged") and "Traceback" not in result.output
    assert everything_in(finished) == before


def test_steps_are_told_without_blank_lines(told):
    """Catches progress bars that leave empty lines where there is no terminal."""
    judging = [number for number, line in enumerate(told) if line.startswith("judging")]
    assert len(judging) == 7
    assert all(told[number + 1].strip() for number in judging)


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_all_that_is_wrong_is_told_at_once(options, tmp_path):
    """Catches a user who mends one file, waits, and is told of the next: output, data and specialists are all looked at."""
    write_data(tmp_path)
    (tmp_path / "train.jsonl").write_text("{broken\n")
    recipe = write_recipe(tmp_path)
    for name, text in (("text", "{}"), ("code", "[]"), ("math", "{")):
        tiny_specialist(tmp_path / "runs" / name / "model")
        (tmp_path / "runs" / name / "model/config.json").write_text(text)
    (tmp_path / "math.jinja").write_text(TEMPLATES["chatml"])
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").touch()
    before = sorted(tmp_path.rglob("*"))
    result = CliRunner().invoke(app, ["run", str(recipe), *options])
    first, *lines = result.stderr.splitlines()
    assert (result.exit_code, first) == (2, "error: tiny: 5 mistakes")
    config = [f"{name}/model/config.json: " for name in ("code", "math")]
    about = ["/out: ", "/train.jsonl line 1: ", "text/model: a config.json without model_type", *config]
    assert all(words in line for words, line in zip(about, lines, strict=True)), lines
    assert sorted(tmp_path.rglob("*")) == before
