"""Mistakes of the user's that training must find before it begins, or must not carry to the end: nothing is lost or published."""

from __future__ import annotations

import json
import math
import shutil
import signal

import pytest
from safetensors.torch import load_file, save_file
from training_world import DOMAINS, ONE_STEP, TWO_STEPS, conversations, run_training, start, write_data
from transformers.integrations import integration_utils
from typer.testing import CliRunner

from ultrafuser.cli import app
from ultrafuser.data.conversations import Conversation
from ultrafuser.errors import UserError
from ultrafuser.model.tensors import INDEX_FILE
from ultrafuser.schema import LARGEST_SEED
from ultrafuser.train.checkpoint import checkpoints
from ultrafuser.train.interrupt import RememberedInterrupt, interrupts_remembered
from ultrafuser.train.stage import Stage, TrainSettings, check_stages
from ultrafuser.train.trainer import StageTrainer


def read_strictly(path):
    """JSON lines by the standard, which knows no NaN."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("gate.safetensors", r"gate\.safetensors: no such file"),
        ("model-00001-of-00001.safetensors", r"model-00001-of-00001\.safetensors: no such file"),
        ("tokenizer.json", "fused: its tokenizer does not load"),
    ],
)
def test_a_model_with_a_file_missing(file, message, fused, tmp_path):
    """Catches a traceback from deep inside a loader, and a work directory left for a run that cannot begin."""
    shutil.copytree(fused, tmp_path / "fused", ignore=lambda folder, names: [file])
    with pytest.raises(UserError, match=message):
        start(tmp_path / "fused", conversations(), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["fused"]


def test_a_model_with_a_weight_missing(fused, tmp_path):
    """Catches random numbers in the place of a weight that is in neither the files nor their index."""
    shutil.copytree(fused, tmp_path / "fused")
    index = json.loads((tmp_path / "fused" / INDEX_FILE).read_text())
    name = next(name for name in index["weight_map"] if name.endswith("q_proj.weight"))
    file = tmp_path / "fused" / index["weight_map"].pop(name)
    weights = load_file(file)
    del weights[name]
    save_file(weights, file, metadata={"format": "pt"})
    (tmp_path / "fused" / INDEX_FILE).write_text(json.dumps(index))
    with pytest.raises(UserError, match=f"1 tensor is missing: {name}"):
        start(tmp_path / "fused", conversations(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_largest_seed_is_one_for_every_stage(fused, tmp_path):
    """Catches a seed that is refused once a stage has been trained, since each stage has one of its own."""
    assert start(fused, conversations(), tmp_path / "out", TWO_STEPS, seed=LARGEST_SEED).exists()


def test_a_weight_of_another_shape(fused, tmp_path):
    """Catches pages of the library's report where one line is wanted, and random numbers in the weight's place."""
    shutil.copytree(fused, tmp_path / "fused")
    index = json.loads((tmp_path / "fused" / INDEX_FILE).read_text())
    name, file = next((name, file) for name, file in index["weight_map"].items() if name.endswith("q_proj.weight"))
    weights = load_file(tmp_path / "fused" / file)
    weights[name] = weights[name][:-1].clone()
    save_file(weights, tmp_path / "fused" / file, metadata={"format": "pt"})
    with pytest.raises(UserError, match=rf"tensor {name} has shape \[\d+, \d+\], its config.json promises"):
        start(tmp_path / "fused", conversations(), tmp_path / "out")


@pytest.mark.parametrize(("part", "load_in"), [("q_proj.weight", None), ("q_proj.weight", "4bit"), ("norms.0.weight", "8bit")])
def test_a_weight_that_is_no_number(part, load_in, fused, tmp_path):
    """Catches nan in the model that is told as training that has diverged, to be mended by a lower learning rate."""
    if load_in:
        pytest.importorskip("bitsandbytes")
    shutil.copytree(fused, tmp_path / "fused")
    index = json.loads((tmp_path / "fused" / INDEX_FILE).read_text())["weight_map"]
    name = next(name for name in index if name.endswith(part))
    weights = load_file(tmp_path / "fused" / index[name])
    weights[name].view(-1)[0] = math.nan
    save_file(weights, tmp_path / "fused" / index[name], metadata={"format": "pt"})
    told = f"fused: tensor .*{part} holds numbers that are not finite"
    if load_in and part.startswith("q_proj"):  # its own numbers are gone when it is quantised
        told = "the loss is nan before anything has moved, whatever the learning rate; look at the model"
    with pytest.raises(UserError, match=told):
        start(tmp_path / "fused", conversations(), tmp_path / "out", load_in=load_in)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"learning_rate": math.inf}, "learning_rate=inf: must be finite"),
        ({"learning_rate": math.nan}, "learning_rate=nan: must be"),
        ({"max_grad_norm": 0.0}, "max_grad_norm=0.0: must be above 0"),
        ({"max_grad_norm": math.nan}, "max_grad_norm=nan: must be"),
        ({"weight_decay": -0.1}, "weight_decay=-0.1: must be at least 0"),
        ({"weight_decay": math.inf}, "weight_decay=inf: must be finite"),
        ({"warmup_steps": -1}, "warmup_steps=-1: must be at least 0"),
        ({"lora_alpha": 0}, "lora_alpha=0: must be at least 1"),
    ],
)
def test_impossible_numbers(fields, message):
    """Catches a number that is no setting, above all NaN, which compares as false with everything."""
    with pytest.raises(UserError, match=message):
        Stage("a", "all", steps=1, per_domain=1, **fields)
    assert Stage("a", "all", steps=1, per_domain=1, weight_decay=0.0)


def test_no_step_at_all():
    """Catches an untrained copy published with an empty table of its training."""
    none = [Stage("gate", "gate", steps=0, per_domain=1), Stage("joint", "all", steps=0, per_domain=1)]
    with pytest.raises(UserError, match="nothing to train: 0 steps in stage gate and stage joint"):
        check_stages(none, TrainSettings())
    check_stages([none[0], Stage("joint", "all", steps=1, per_domain=1)], TrainSettings())


@pytest.mark.parametrize("rate", [1e38, 1e39])
def test_a_diverged_run_is_not_published(rate, fused, tmp_path):
    """Catches NaN in the metrics or the weights (at 1e39 only the last step's) that ends as a success."""
    stages = (Stage("joint", moves="all", steps=4 if rate < 1e39 else 1, per_domain=2, learning_rate=rate),)
    with pytest.raises(
        UserError, match=r"'joint' has diverged: at step [123] .*; try a learning rate lower than 1e\+3[89], with"
    ):
        start(fused, conversations(), tmp_path / "out", stages, log_every=1)
    assert [path.name for path in tmp_path.iterdir()] == ["out.work"]
    assert all(math.isfinite(line["loss"]) for line in read_strictly(tmp_path / "out.work" / "1-joint" / "metrics.jsonl"))
    assert start(fused, conversations(), tmp_path / "out", ONE_STEP, overwrite=True).exists()  # as the message says


def test_a_loss_that_has_risen_is_told(fused, tmp_path, caplog):
    """Catches finite nonsense that is published as if it had learnt, and a doubt about one that has."""
    for rate, told in [(10.0, ["stage 'joint': the loss has risen from"]), (1e-3, [])]:
        caplog.clear()
        stages = (Stage("joint", "all", steps=4, per_domain=4, learning_rate=rate),)
        out = start(fused, conversations(), tmp_path / f"{rate}", stages)
        assert [line[:38] for line in caplog.messages if "has risen" in line] == told
        first, *_, last = read_strictly(out / "training" / "metrics.jsonl")
        assert (last["loss"] > 1.25 * first["loss"]) == bool(told)


def test_the_last_good_checkpoint_is_kept(fused, tmp_path, monkeypatch):
    """Catches a checkpoint written over by one that is no good, and a stop that comes later than the next log line."""
    compute_loss = StageTrainer.compute_loss

    def diverging(self, *args, **options):
        loss = compute_loss(self, *args, **options)
        return loss * math.nan if self.state.global_step >= 3 else loss

    monkeypatch.setattr(StageTrainer, "compute_loss", diverging)
    stages = (Stage("gate", moves="gate", steps=40, per_domain=4),)
    with pytest.raises(UserError, match=r"at step 4 loss is nan\. .*the last good checkpoint is .*checkpoint-2; try"):
        start(fused, conversations(), tmp_path / "out", stages, log_every=2, save_every=2)
    folder = tmp_path / "out.work" / "1-gate"
    assert [path.name for path in checkpoints(folder)] == ["checkpoint-2"] and not (tmp_path / "out").exists()
    assert [line["step"] for line in read_strictly(folder / "metrics.jsonl")] == [1, 2]


def test_doubtful_domains_and_what_was_cut_are_told_once(fused, tmp_path, caplog, capfd):
    """Catches a slip in a domain's name that trains silently, and the summary of the data said twice where something was cut."""
    slip = Conversation("maths", conversations()[0].messages, "x")
    data = write_data(tmp_path / "d.jsonl", [*conversations(), slip])
    start(fused, data, tmp_path / "a", progress=True)
    assert [message for message in caplog.messages if "did you mean 'math'?" in message]
    assert capfd.readouterr().err.count("31 examples (") == 1
    caplog.clear()
    long = slip.messages + [message | {"content": message["content"] * 30} for message in slip.messages]
    data = write_data(tmp_path / "e.jsonl", [*conversations(), Conversation("math", long, "x")])
    start(fused, data, tmp_path / "b", progress=True, max_length=100, domains=DOMAINS)
    summary = "31 examples (text 10, code 10, math 11)"
    told = [message for message in caplog.messages if message.startswith(summary)]
    assert len(told) == 1 and "1 cut" in told[0] and summary not in capfd.readouterr().err
    assert not any("did you mean" in message for message in caplog.messages)


def test_names_of_data_beside_conversations(fused, tmp_path):
    """Catches conversations that are silently left out because a file stands beside them."""
    data = write_data(tmp_path / "d.jsonl")
    with pytest.raises(UserError, match=r"^data: .*d\.jsonl stands beside conversations; give either"):
        start(fused, [*conversations(), data], tmp_path / "out")


def test_conversations_without_a_response(fused, tmp_path):
    """Catches one that is called too long because it has no turn that could fit."""
    asked = Conversation("text", [{"role": "user", "content": "What?"}], "here")
    with pytest.raises(UserError, match=r"^here: has no response; end with the assistant's message$"):
        start(fused, [*conversations(), asked], tmp_path / "out")
    assert not [*tmp_path.iterdir()]


def test_domains_given_wrongly(fused, tmp_path):
    """Catches the second of two alike told to have no example, and one text taken for a list of letters."""
    with pytest.raises(UserError, match=r"domains='text': must be Sequence\[str\] \| None, such as \['text'\]"):
        start(fused, conversations(), tmp_path / "out", domains="text")
    with pytest.raises(UserError, match="domain 'text' is given twice"):
        start(fused, conversations(), tmp_path / "out", domains=["text", "code", "math", "text"])


def test_trackers_that_transformers_does_not_list(monkeypatch):
    """Catches a tracker told not to be installed because transformers leaves it out of those that "all" means."""
    monkeypatch.setattr(integration_utils, "get_available_reporting_integrations", lambda: ["mlflow"])
    for name, library in (("flyte", "flytekit"), ("azure_ml", "azureml")):
        with pytest.raises(UserError, match=rf"^report_to: '{name}' is not installed \(installed are: mlflow"):
            check_stages(ONE_STEP, TrainSettings(report_to=name))
        monkeypatch.setattr(integration_utils, f"is_{library}_available", lambda: True)
        check_stages(ONE_STEP, TrainSettings(report_to=name))


@pytest.mark.parametrize("name", ["wandbb", "wandb"])
def test_trackers_are_looked_for_first(name, fused, tmp_path, monkeypatch):
    """Catches hours of tokenising before a tracker that nobody knows, or that is not installed, is told."""
    monkeypatch.setattr(integration_utils, "get_available_reporting_integrations", list)
    monkeypatch.setattr("ultrafuser.train.run.read_conversations", lambda *args, **options: pytest.fail("was read first"))
    with pytest.raises(UserError, match=f"^report_to: '{name}' is not "):
        start(fused, tmp_path / "d.jsonl", tmp_path / "out", report_to=(name,))


def test_the_card_no_longer_calls_the_gate_untrained(fused, tmp_path):
    """Catches a trained model whose card tells its reader to train it first."""
    assert "untrained" in (fused / "README.md").read_text()
    card = (start(fused, conversations(), tmp_path / "out") / "README.md").read_text()
    assert "untrained" not in card and "## Use" in card and "## Training" in card


def test_a_ctrl_c_that_was_swallowed_still_stops(fused, tmp_path):
    """Catches an interrupt lost while compiled modules are imported, or because a script's background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts_remembered():
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            with pytest.raises(KeyboardInterrupt):
                run_training(fused, tmp_path / "out")
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
    assert [path.name for path in checkpoints(tmp_path / "out.work" / "1-gate")] == ["checkpoint-1"]


def test_what_the_command_hands_over(monkeypatch):
    """Catches spaces kept in the list of trackers, and a command that begins without remembering a Ctrl-C."""
    seen = []

    def record(*args, settings, **options):
        seen.append((settings.report_to, type(signal.getsignal(signal.SIGINT))))

    monkeypatch.setattr("ultrafuser.train.run.train", record)
    for more in ([], ["--report-to", "tensorboard, wandb"]):
        assert CliRunner().invoke(app, ["train", "m", "--data", "d.jsonl", "--out", "o", *more]).exit_code == 0
    assert seen == [((), RememberedInterrupt), (("tensorboard", "wandb"), RememberedInterrupt)]
