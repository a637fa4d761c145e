"""Stages against hand-written loops: what moves, what does not, losses, gradients and metrics."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from peft import PeftModel
from training_world import DOMAINS, QUIET, conversations, make_dataset, make_fused, message, weights
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

import ultrafuser
from reference import fuse_by_hand, tiny_llama
from tiny import tiny_tokenizer
from ultrafuser.data.conversations import Conversation
from ultrafuser.data.dataset import IGNORED
from ultrafuser.errors import UserError
from ultrafuser.model.configuration_ultrafuser import REMOTE_CODE_FILES
from ultrafuser.model.fuse import fuse
from ultrafuser.train import metrics as metrics_module
from ultrafuser.train.callbacks import ProgressBar
from ultrafuser.train.metrics import MetricWindow, gate_doubt
from ultrafuser.train.run import train, train_stage
from ultrafuser.train.stage import PAPER_STAGES, Stage, TrainSettings, check_stages, split_batch

ONE = {"steps": 1, "per_domain": 1}


def settings(**changes):
    return TrainSettings(**(QUIET | changes))


def random_examples(domains, count, seed=0):
    """(domain id, tokens, which are answers) with lengths that differ, so that a mean of means shows."""
    random = torch.Generator().manual_seed(seed)
    examples = []
    for i in range(count * domains):
        prompt, answer = 2 + i % 3, 1 + (5 * i) % 7
        tokens = torch.randint(1, 60, (prompt + answer,), generator=random).tolist()
        examples.append((i % domains, tokens, [False] * prompt + [True] * answer))
    return examples


def by_hand(parameters, loss_of, order, batch, steps, rate, clip=1.0):
    """The obvious loop: whole batch at once, mean over its answer tokens, clipped AdamW, cosine. Returns the losses."""
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    losses = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        token_losses = torch.cat([loss_of(i) for i in order[step * batch : (step + 1) * batch]])
        loss = token_losses.mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
        losses.append(loss.item())
    return losses


def sampled_order(dataset, stage, seed):
    from ultrafuser.data.balance import BalancedSampler

    return list(BalancedSampler(dataset.domain_ids, per_domain=stage.per_domain, steps=stage.steps, seed=seed))


@pytest.mark.parametrize("micro_batch_size", [1, 3, 8])
def test_causal_lm_trains_as_a_hand_written_loop(micro_batch_size, tmp_path):
    """Catches a loss averaged over micro-batches instead of tokens, a wrong schedule, lost examples; pins a trajectory."""
    model, copy = tiny_llama(0), tiny_llama(0)
    examples = random_examples(2, 5)
    stage = Stage("all", moves="all", steps=4, per_domain=3, learning_rate=3e-3)
    dataset = make_dataset(examples, ["a", "b"])
    history = train_stage(
        model, tiny_tokenizer(), dataset, stage, tmp_path, settings(micro_batch_size=micro_batch_size, log_every=1, seed=5)
    )

    def loss_of(i):
        _, tokens, answers = examples[i]
        logits = copy(torch.tensor([tokens])).logits[0, :-1]
        return F.cross_entropy(logits, torch.tensor(tokens[1:]), reduction="none")[torch.tensor(answers[1:])]

    losses = by_hand(list(copy.parameters()), loss_of, sampled_order(dataset, stage, 5), 6, 4, 3e-3)
    assert [line["loss"] for line in history] == pytest.approx(losses, rel=1e-4)
    assert losses == pytest.approx([4.7164, 4.1218, 4.0684, 3.4982], abs=5e-3)
    torch.testing.assert_close(dict(model.named_parameters()), dict(copy.named_parameters()), rtol=1e-3, atol=2e-5)
    assert "gate_entropy" not in history[-1]
    assert model.config.use_cache and not model.training  # as it was: its owner may save it now


def test_gate_stage_trains_as_explicit_mix_of_separate_models(tmp_path):
    """Catches a gate gradient other than that of softmax(sum_j w_j o_j) over N separate models, and wrong gate metrics."""
    own = [tiny_llama(seed) for seed in (1, 2)]
    fused = fuse_by_hand(own)
    before = {name: tensor.clone() for name, tensor in fused.state_dict().items()}
    gate = {name: tensor.clone().requires_grad_() for name, tensor in before.items() if ".gate." in name}
    examples = random_examples(2, 4)
    stage = Stage("gate", moves="gate", steps=3, per_domain=2, learning_rate=2e-2)
    dataset = make_dataset(examples, ["a", "b"])
    history = train_stage(fused, tiny_tokenizer(), dataset, stage, tmp_path, settings(micro_batch_size=2, log_every=1))
    seen = []

    def loss_of(i):
        domain, tokens, answers = examples[i]
        with torch.no_grad():
            outputs = [model(torch.tensor([tokens]), output_hidden_states=True) for model in own]
        states = [output.hidden_states[-1][0, :-1] for output in outputs]
        inner = [torch.relu(h @ gate["model.gate.linear_in.weight"].T + gate["model.gate.linear_in.bias"]) for h in states]
        scores = [i @ gate["model.gate.linear_out.weight"].T + gate["model.gate.linear_out.bias"] for i in inner]
        w = torch.softmax(torch.cat(scores, dim=-1), dim=-1)  # (T-1, N)
        mixed = sum(w[:, j : j + 1] * output.logits[0, :-1] for j, output in enumerate(outputs))
        chosen = torch.tensor(answers[1:])
        losses = F.cross_entropy(mixed, torch.tensor(tokens[1:]), reduction="none")[chosen]
        seen.append((domain, losses.detach(), w[chosen].detach()))
        return losses

    losses = by_hand(list(gate.values()), loss_of, sampled_order(dataset, stage, 0), 4, 3, 2e-2)
    assert [line["loss"] for line in history] == pytest.approx(losses, rel=1e-4)
    for step, line in enumerate(history):
        for domain, name in enumerate(["a", "b"]):
            batch = [(loss, w) for d, loss, w in seen[4 * step : 4 * step + 4] if d == domain]
            w = torch.cat([w for _, w in batch])
            assert line[f"loss/{name}"] == pytest.approx(torch.cat([loss for loss, _ in batch]).mean().item(), rel=1e-4)
            assert [line[f"gate/{name}/specialist{j}"] for j in range(2)] == pytest.approx(w.mean(0).tolist(), rel=1e-3)
            assert line[f"gate_entropy/{name}"] == pytest.approx(-(w * w.log()).sum(-1).mean().item(), rel=1e-3)
            assert line[f"passes/{name}"] == pytest.approx(2 * (step + 1) / 4)
    for name, tensor in fused.state_dict().items():
        if name in gate:
            if name != "model.gate.linear_out.bias":  # nothing depends on it: see training_world.weights
                torch.testing.assert_close(tensor, gate[name].detach(), rtol=1e-3, atol=1e-4)
                assert not torch.equal(tensor, before[name])
        else:
            assert torch.equal(tensor, before[name]), name


def test_frozen_specialists_run_without_dropout_or_graph(tmp_path, monkeypatch):
    """Catches specialists that are other than in use while the gate learns to read them, or that keep activations."""
    fused = fuse_by_hand([tiny_llama(seed, attention_dropout=0.5) for seed in (1, 2)])
    states = []
    handle = fused.model.norms[0].register_forward_hook(lambda module, args, output: states.append(output))
    dataset = make_dataset(random_examples(1, 2), ["a"])
    stage = Stage("gate", moves="gate", steps=2, per_domain=2, learning_rate=1e-9)
    history = train_stage(fused, tiny_tokenizer(), dataset, stage, tmp_path, settings(log_every=1))
    handle.remove()
    assert states and not any(state.requires_grad for state in states)
    assert history[0]["loss"] == pytest.approx(history[1]["loss"], rel=1e-5)  # both examples, twice


def test_gate_stage_rewrites_the_gate_file_alone(fused, tmp_path):
    """Catches a gate stage that changes, or merely re-encodes, anything of the specialists."""
    source = {p.relative_to(fused): p for p in fused.rglob("*") if p.is_file()}
    stages = (Stage("gate", "gate", steps=2, per_domain=2, learning_rate=1e-2),)
    before = {name: path.read_bytes() for name, path in source.items()}
    out = train(fused, conversations(), tmp_path / "out", stages=stages, settings=settings())
    after = {p.relative_to(out): p for p in out.rglob("*") if p.is_file() and p.parent.name != "training"}
    assert after.keys() == before.keys()
    assert {str(name) for name, path in after.items() if path.read_bytes() != before[name]} == {"gate.safetensors", "README.md"}
    assert {name: path.read_bytes() for name, path in source.items()} == before
    shard = next(name for name in source if name.name.startswith("model-"))
    assert after[shard].samefile(source[shard])
    assert "| gate | gate | 2 | 2 | 0.01, cosine |" in (out / "README.md").read_text()


def test_a_specialist_may_have_the_name_of_the_history(tmp_path):
    """Catches a specialist named ``training`` that loses its tokenizer and template, and another model's history kept."""
    make_fused(tmp_path)
    names = ["training", "code", "math"]
    given = fuse([tmp_path / name for name in DOMAINS], tmp_path / "given", names=names)
    (given / "training").mkdir()
    (given / "training" / "old").touch()
    out = train(given, conversations(), tmp_path / "out", stages=(Stage("gate", moves="gate", **ONE),), settings=settings())
    own = [
        {path.relative_to(folder): path.read_bytes() for path in (folder / "specialists").rglob("*") if path.is_file()}
        for folder in (given, out)
    ]
    assert own[0] == own[1] and Path("specialists/training/config.json") in own[0]
    assert sorted(path.name for path in (out / "training").iterdir()) == ["metrics.jsonl", "settings.json"]


def test_a_stage_writes_the_code_that_has_trained(tmp_path):
    """Catches a result that runs older code than this package's where the package is not installed."""
    fused = make_fused(tmp_path)
    (fused / "cache_ultrafuser.py").unlink()
    (fused / "modeling_ultrafuser.py").write_text("old")
    stages = (Stage("gate", "gate", steps=1, per_domain=2),)
    out = train(fused, conversations(), tmp_path / "out", stages=stages, settings=settings())
    package = Path(ultrafuser.__file__).parent / "model"
    for name in REMOTE_CODE_FILES:
        assert (out / name).read_bytes() == (package / name).read_bytes()


def test_joint_and_lora_stages_move_what_they_should(tmp_path, fused):
    """Catches adapters left in the checkpoint, adapters not merged, frozen parts that move, moving parts that do not."""
    lora = Stage("lora", moves="lora", steps=2, per_domain=2, learning_rate=1e-2, lora_rank=2)
    joint = Stage("joint", moves="all", steps=2, per_domain=2, learning_rate=1e-2)
    skipped = Stage("skipped", moves="gate", steps=0, per_domain=2)
    out = train(fused, conversations(), tmp_path / "out", stages=(skipped, lora, joint), settings=settings(keep_stages=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "out-lora"]
    start, middle, end = weights(fused), weights(tmp_path / "out-lora"), weights(out)
    assert start.keys() == middle.keys() == end.keys()
    moved = {name for name in start if not torch.equal(start[name], middle[name])}
    assert moved == {name for name in start if "_proj" in name or ".gate." in name}
    still = {name for name in start if torch.equal(middle[name], end[name])}
    assert not still
    lines = [json.loads(line) for line in (out / "training" / "metrics.jsonl").read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in lines] == [("lora", 1), ("lora", 2), ("joint", 1), ("joint", 2)]
    model = AutoModelForCausalLM.from_pretrained(out)
    assert not isinstance(model, PeftModel) and model.config.use_cache


def test_same_seed_same_weights_other_seed_others(fused, tmp_path):
    """Catches hidden randomness, and a seed that is not used."""
    stages = (Stage("lora", moves="lora", steps=2, per_domain=2, learning_rate=1e-2),)
    outs = []
    for number, seed in enumerate((4, 4, 5)):
        outs.append(train(fused, conversations(), tmp_path / f"{number}", stages=stages, settings=settings(seed=seed)))
    one, two, other = (weights(out) for out in outs)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_low_precision_checkpoints_keep_their_dtypes(tmp_path):
    """Catches a joint stage that writes float32 over a bfloat16 checkpoint, or that trains in bfloat16 (steps round away)."""
    from training_world import make_fused

    fused = make_fused(tmp_path, dtype=torch.bfloat16)
    stages = (Stage("joint", moves="all", steps=3, per_domain=2, learning_rate=1e-2),)
    out = train(fused, conversations(), tmp_path / "out", stages=stages, settings=settings())
    before, after = weights(fused), weights(out)
    assert {name: tensor.dtype for name, tensor in before.items()} == {name: tensor.dtype for name, tensor in after.items()}
    assert before["model.embed_tokens.weight"].dtype == torch.bfloat16


def test_metric_window_against_loops():
    """Catches weights read one position late, padding counted as answer, and a domain without tokens."""
    torch.manual_seed(0)
    window = MetricWindow(["a", "b", "c"], ["x", "y"], torch.device("cpu"))
    sums = {name: [] for name in ("a", "b")}
    for _ in range(3):
        labels = torch.where(torch.rand(4, 6) < 0.5, torch.randint(0, 9, (4, 6)), IGNORED)
        losses, gate, domain_ids = torch.rand(4, 6), torch.softmax(torch.randn(4, 6, 2), -1), torch.tensor([0, 1, 1, 0])
        window.add(domain_ids, labels, losses, gate, torch.tensor(24))
        for b in range(4):
            for t in range(1, 6):
                if labels[b, t] != IGNORED:
                    sums["ab"[domain_ids[b]]].append((losses[b, t].item(), *gate[b, t - 1].tolist()))
    metrics = window.drain(lambda tensor: tensor)
    for name, rows in sums.items():
        loss, x, y = (sum(column) / len(rows) for column in zip(*rows, strict=True))
        found = [metrics[f"loss/{name}"], metrics[f"gate/{name}/x"], metrics[f"gate/{name}/y"]]
        assert found == pytest.approx([loss, x, y])
    assert "loss/c" not in metrics
    assert window.drain(lambda tensor: tensor)["tokens_per_second"] == 0


def test_a_gate_that_neglects_specialists_is_seen():
    """Catches a silent collapse, also of a gate that is not sharp, a specialist left out, and a doubt about one that is right."""

    def doubt(domains, *rows):
        names = ["text", "code", "math"]
        weights = {(domain, name): row[i] for domain, row in zip(domains, rows, strict=True) for i, name in enumerate(names)}
        return gate_doubt({f"gate/{domain}/{name}": weight for (domain, name), weight in weights.items()}, domains, names)

    steady = (0.96, 0.02, 0.02)
    assert doubt("abc", steady, steady, steady).startswith("the gate has collapsed onto 'text' (above 95%")
    assert doubt("abc", steady, steady, (0.94, 0.03, 0.03)) is None
    assert doubt("a", steady) is None and doubt("abc", steady, (0.02, 0.96, 0.02), (0.02, 0.02, 0.96)) is None
    left_out = [(0.6, 0.395, 0.005), (0.395, 0.6, 0.005)]
    assert doubt("abc", *left_out, left_out[0]).startswith("the gate gives 'math' below 1% in every domain")
    assert doubt("ab", *left_out) is None  # a domain less than specialists
    assert gate_doubt({"gate/a/text": 0.99, "gate/a/code": 0.01}, ["a", "b"], ["text", "code"]) is None  # nothing of b yet


def test_collapsed_gate_is_warned_about(tmp_path, caplog):
    """Catches the warning not reaching the user, or coming at every log line."""
    fused = fuse_by_hand([tiny_llama(seed) for seed in (1, 2)])
    with torch.no_grad():
        fused.model.gate.linear_out.weight.mul_(1000)
        fused.model.norms[1].weight.zero_()  # its score is a constant; make the other one win
        fused.model.gate.linear_out.weight.abs_()
    dataset = make_dataset(random_examples(2, 2), ["a", "b"])
    stage = Stage("gate", moves="gate", steps=3, per_domain=2, learning_rate=1e-9)
    train_stage(fused, tiny_tokenizer(), dataset, stage, tmp_path, settings(log_every=1))
    assert [record.message for record in caplog.records if "collapsed onto 'specialist0'" in record.message] == [
        caplog.records[0].message
    ]


def test_batches_are_split_or_refused():
    """Catches a micro-batch that changes the global batch."""
    assert split_batch(192, 1, 8) == (8, 24)
    assert split_batch(192, 2, 7) == (6, 16)
    assert split_batch(6, 1, 8) == (6, 1)
    assert split_batch(14, 2, 4) == (1, 7)
    with pytest.raises(UserError, match="9 examples cannot be shared by 2 processes"):
        split_batch(9, 2, 8)


def test_paper_stages():
    """Catches a default that is not the paper's (section 3)."""
    assert [(s.moves, s.steps, s.per_domain, s.learning_rate, s.schedule) for s in PAPER_STAGES] == [
        ("gate", 400, 64, 2e-5, "cosine"),
        ("all", 5000, 32, 2e-5, "cosine"),
    ]


LOSSES = {f"loss/{domain}": 5.5 for domain in ("text", "code", "mathematics", "poetry", "law", "medicine")}
NEWS = {"loss": 5.5, **LOSSES, "gate/a/b/text": 0.25, "gate/a/b/code": 0.75, "gate_entropy": 1.0, "tokens_per_second": 1234.0}


def told(capsys, *steps):
    """What the bar of a stage of 30 steps shows when there is news at these steps."""
    state = SimpleNamespace(is_world_process_zero=True, max_steps=30, global_step=0)
    bar = ProgressBar("joint")
    bar.on_train_begin(None, state, None)
    for state.global_step in steps:
        bar.on_log(None, state, None, logs=NEWS)
    bar.on_train_end(None, state, None)
    return re.sub(r"\x1b\[[^a-zA-Z]*[a-zA-Z]", "", capsys.readouterr().err)


def test_the_bar_and_its_news_fit_a_narrow_terminal(monkeypatch, capsys):
    """Catches news of many domains beside the bar, which leave the steps and the time no room, and gate weights not shown."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    shown = " ".join(told(capsys, 0).split())
    assert shown.startswith("joint ") and "0/30" in shown and "medicine 5.500) entropy 1.00 1,234 tok/s" in shown
    assert "tok/s a/b: text 0.25, code 0.75" in shown


def test_news_where_stderr_is_a_file(monkeypatch, capsys):
    """Catches a cluster's log that says nothing until a stage ends, nor its last loss, or drowns in lines."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setattr("ultrafuser.train.callbacks.time.monotonic", lambda: 5.0)
    lines = told(capsys, *range(1, 31)).splitlines()
    steps = [line.split(":")[1] for line in lines if line.startswith("joint: step")]
    assert steps == [f" step {step} of 30" for step in (1, *range(4, 29, 3), 30)] and "loss 5.500 (text 5.500, " in lines[0]


def test_speed_counts_neither_setting_up_nor_saving(monkeypatch):
    """Catches a first line of every stage, and the one after a checkpoint, that is far too slow."""
    now = [0.0]
    monkeypatch.setattr(metrics_module.time, "perf_counter", lambda: now[0])
    window = MetricWindow(["a"], [], torch.device("cpu"))

    def speed(*seconds):
        for second in seconds:
            window.start_clock()
            window.add(torch.tensor([0]), torch.tensor([[IGNORED, 1]]), torch.ones(1, 2), None, torch.tensor(10))
            now[0] += second
        return window.drain(lambda tensor: tensor)["tokens_per_second"]

    now[0] = 100.0
    assert speed(2, 2) == speed(2, 2, 2) == 5
    window.stop_clock()
    now[0] += 50
    assert speed(1) == 10


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Stage("a", moves="gates", **ONE),
            "^stage 'a': moves='gates': must be 'gate', 'lora' or 'all'; did you mean",
        ),
        (lambda: Stage("a", "all", **ONE, schedule="cosin"), "did you mean 'cosine'"),
        (lambda: Stage("a", "all", steps=-1, per_domain=1), "^stage 'a': steps=-1: must be at least 0$"),
        (lambda: Stage("a/b", "all", **ONE), "name='a/b': must be letters"),
        (lambda: Stage("a", "all", **ONE, learning_rate=0), "learning_rate=0: must be above 0"),
        (lambda: Stage("a", "all", **ONE, learing_rate=1), "^stage 'a': learing_rate: unknown key; did you mean 'learning_rate'"),
        (lambda: Stage("a", "all", steps=1), "^stage 'a': per_domain: is missing$"),
        (lambda: Stage("a", "all", 16, **ONE), "^stage 'a': 2=16: must be given by its name$"),
        (lambda: replace(PAPER_STAGES[0], steps=-1), "^stage 'gate': steps=-1: "),
        (lambda: TrainSettings(load_in="2bit"), "^load_in='2bit': must be '8bit' or '4bit'"),
        (lambda: Stage("a", "all", steps=True, per_domain=1), "^stage 'a': steps=True: must be a whole number$"),
        (lambda: Stage("a", "all", **ONE, learning_rate=True), "learning_rate=True: must be a number$"),
        (lambda: TrainSettings(save_every=0), "save_every=0: must be at least 1"),
        (
            lambda: check_stages([Stage("a", "all", **ONE, warmup_steps=2)], TrainSettings()),
            r"^stage 'a': warmup_steps: 2 is more",
        ),
        (
            lambda: check_stages(PAPER_STAGES, TrainSettings(load_in="4bit")),
            "^stage 'joint': moves: 'all' cannot be with load_in=4bit",
        ),
        (lambda: check_stages((PAPER_STAGES[0],) * 2, TrainSettings()), "^stage 'gate': name: 'gate' is the name of another"),
        (lambda: check_stages((), TrainSettings()), "no stage"),
    ],
)
def test_bad_settings_are_named(make, message):
    """Catches a bad value that is found out an hour later."""
    with pytest.raises(UserError, match=message):
        make()


def test_bad_input_leaves_nothing_behind(tmp_path, fused):
    """Catches a traceback, or an output or work directory, after a mistake of the user's."""
    plain, other = tmp_path / "plain", tmp_path / "other"
    for folder, config in ((plain, '{"model_type": "llama"}'), (other, "[]")):
        folder.mkdir()
        (folder / "config.json").write_text(config)
    data, out = conversations(), tmp_path / "out"
    for model, told, why in [
        (tmp_path / "no", data, "no such directory"),
        (plain, data, "not a fused model but one of type llama"),
        (other, data, "must hold keys with their values"),
        (fused, tmp_path / "no.jsonl", r"no\.jsonl"),
        (fused, [Conversation("text", [message("user", "a"), message("assistant", "b " * 600)], "x")], "no example"),
        (fused, [], "no conversation to train on"),
    ]:
        with pytest.raises(UserError, match=why):
            train(model, told, out, settings=settings())
    with pytest.raises(UserError, match="report_to: 'wandbb' is not one of "):
        train(fused, data, out, settings=settings(report_to=("wandbb",)))
    assert {path.name for path in tmp_path.iterdir()} == {"plain", "other"}


def test_ordinary_models_have_no_gate_to_train(tmp_path):
    """Catches a stage that trains nothing."""
    stage = Stage("gate", moves="gate", steps=1, per_domain=1)
    with pytest.raises(UserError, match="a LlamaForCausalLM has none"):
        train_stage(tiny_llama(0), tiny_tokenizer(), make_dataset(random_examples(1, 1), ["a"]), stage, tmp_path, settings())


def test_tokenizer_without_any_padding_is_refused(tmp_path):
    """Catches padding by token None, deep inside the collator."""
    bare = PreTrainedTokenizerFast(tokenizer_object=tiny_tokenizer().backend_tokenizer)
    stage = Stage("all", moves="all", steps=1, per_domain=1)
    with pytest.raises(UserError, match="pad"):
        train_stage(tiny_llama(0), bare, make_dataset(random_examples(1, 1), ["a"]), stage, tmp_path, settings())


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_quantised_specialists_train_the_gate_alone(bits, tmp_path):
    """Catches a quantised gate, and specialists that are not quantised, or saved as such."""
    bitsandbytes = pytest.importorskip("bitsandbytes")
    from training_world import make_fused

    from ultrafuser.train.load import load_model

    fused = make_fused(tmp_path, hidden_size=64, intermediate_size=64)
    stage = Stage("gate", moves="gate", steps=2, per_domain=2, learning_rate=1e-2)
    model = load_model(fused, stage, settings(load_in=bits))
    kind = {"4bit": bitsandbytes.nn.Linear4bit, "8bit": bitsandbytes.nn.Linear8bitLt}[bits]
    quantised = {name for name, module in model.named_modules() if isinstance(module, kind)}
    assert quantised == {name for name, _ in model.named_modules() if name.endswith("_proj")}
    assert model.model.gate.linear_in.weight.dtype == torch.float32
    out = train(fused, conversations(), tmp_path / "out", stages=(stage,), settings=settings(load_in=bits))
    before, after = weights(fused), weights(out)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {n for n in before if ".gate." in n}


def test_missing_bitsandbytes_is_said(tmp_path, fused, monkeypatch):
    """Catches an import error deep inside transformers."""
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else find(name, *rest))
    stages = (Stage("gate", moves="gate", steps=2, per_domain=2),)
    with pytest.raises(UserError, match=r"pip install 'ultrafuser\[quant\]'"):
        train(fused, conversations(), tmp_path / "out", stages=stages, settings=settings(load_in="4bit"))
    assert not list(tmp_path.iterdir())
