"""The check finds what fusing would stumble over, all of it at once, and measures what it reports."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tiny import tiny_specialist, tiny_tokenizer
from ultrafuser.model.check import CheckReport, check, render
from ultrafuser.model.fuse import FuseOptions, fuse
from ultrafuser.model.scale import PROBES, mean_entropy
from ultrafuser.model.sources import open_specialist
from ultrafuser.tokens.pieces import read_pieces


def texts(report: CheckReport, topic: str) -> str:
    return "\n".join(row.text for row in report.rows if row.topic == topic)


def test_good_specialists(tmp_path: Path) -> None:
    """Catches a check that leaves out a topic of the issue, and sizes that are not those of the fused model."""
    folders = [
        tiny_specialist(tmp_path / "text", template="user"),
        tiny_specialist(tmp_path / "code", "qwen3", 1, template="chatml", tie=True, vocab_size=384),
    ]
    report = check(folders)
    assert report.ok and not report.problems
    topics = {row.topic for row in report.rows}
    assert topics == {"architecture", "vocabulary", "special tokens", "chat templates", "logit scale", "disk", "memory"}
    assert "qwen3" in texts(report, "architecture") and "'<|im_end|>'" in texts(report, "special tokens")
    fused = fuse(folders, tmp_path / "fused")
    count = sum(tensor.numel() for file in fused.glob("*.safetensors") for tensor in load_file(file).values())
    size = sum(tensor.nbytes for file in fused.rglob("*.safetensors") for tensor in load_file(file).values())
    assert f"{count:,} parameters" in texts(report, "memory") and "torch." not in texts(report, "architecture")
    assert f"takes {size / 1000:.0f} kB" in texts(report, "disk")
    stream = StringIO()
    Console(file=stream, width=200).print(render(report))
    assert "Can be fused" in stream.getvalue() and "logit scale" in stream.getvalue()


def test_memory_of_training(tmp_path: Path) -> None:
    """Catches training of bfloat16 specialists told as if gradients and moments were bfloat16 too: twice as much is needed."""
    folders = [tiny_specialist(tmp_path / name, dtype=torch.bfloat16) for name in ("a", "b")]
    told = texts(check(folders, logit_scale=False), "memory")
    model = AutoModelForCausalLM.from_pretrained(fuse(folders, tmp_path / "fused"), dtype=torch.float32)
    frozen = sum(parameter.nbytes for parameter in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss.backward()
    optimizer.step()
    moments = sum(state[name].nbytes for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq"))
    trained = frozen + moments + sum(parameter.nbytes for parameter in model.parameters())  # each has a gradient of its size
    assert f"the gate: {frozen / 2e3:.0f} kB in bfloat16, {frozen / 1e3:.0f} kB in float32" in told
    assert f"everything: {trained / 1e6:.0f} MB" in told


def test_all_problems_at_once(tmp_path: Path) -> None:
    """Catches a check that stops at the first specialist it cannot open."""
    good = tiny_specialist(tmp_path / "good")
    other = tiny_specialist(tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    report = check([good, tmp_path / "none", other])
    assert not report.ok
    assert [("no such directory" in text, "gpt2" in text) for text in report.problems] == [(True, False), (False, True)]
    assert check([good]).problems == ["1 specialist given; from two to eight can be fused"]


def test_vocabulary_and_template_problems_are_both_told(tmp_path: Path) -> None:
    """Catches a conflict of vocabularies that hides a broken template, and the other way round."""
    good, bad = tiny_specialist(tmp_path / "good"), tiny_specialist(tmp_path / "bad", seed=1)
    tokenizer = json.loads((bad / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (bad / "tokenizer.json").write_text(json.dumps(tokenizer))
    (bad / "chat_template.jinja").write_text("drops everything")
    report = check([good, bad], logit_scale=False)
    assert not report.ok
    assert {row.topic for row in report.rows if row.status == "problem"} == {"vocabulary", "chat templates"}


def test_template_given(tmp_path: Path) -> None:
    """Catches a template option that the check does not use."""
    folders = [tiny_specialist(tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
    for folder in folders:
        (folder / "chat_template.jinja").unlink()
    assert not check(folders, logit_scale=False).ok
    assert check(folders, templates=["plain"], logit_scale=False).ok
    assert "did you mean 'chatml'" in check(folders, templates=["chatmel"], logit_scale=False).problems[0]


@pytest.mark.parametrize("template", ["user", "chatml"])
def test_mean_entropy(tmp_path: Path, template: str) -> None:
    """Catches entropies over the prompt, of shifted positions, or in other units than nats."""
    folder = tiny_specialist(tmp_path / "one", "qwen2", template=template, tie=True)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    found = []
    for question, answer in PROBES:
        turn = {"role": "user", "content": question}
        prompt = tokenizer.apply_chat_template([turn], add_generation_prompt=True, tokenize=False)
        ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        tokens = [*tokenizer(answer.strip(), add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        for i, token in enumerate(tokens):
            with torch.no_grad():
                probabilities = model(torch.tensor([ids + tokens[:i]])).logits[0, -1].softmax(-1)
            found.append(-(probabilities * probabilities.log()).sum())
            assert token < len(probabilities)
    one = open_specialist(str(folder), "one")
    actual = mean_entropy(one, read_pieces(one.tokenizer, name="one"))
    assert actual == pytest.approx(float(torch.stack(found).mean()), rel=1e-4)


def test_hot_logits_are_told(tmp_path: Path) -> None:
    """Catches a specialist that would dominate the mix without a word."""
    folders = [tiny_specialist(tmp_path / "calm"), tiny_specialist(tmp_path / "hot", seed=1, initializer_range=0.5)]
    report = check(folders)
    assert report.ok and any("hot is the surest" in note for note in report.notes)
    assert check(folders, logit_scale=False).ok and "logit scale" not in {
        row.topic for row in check(folders, logit_scale=False).rows
    }


def test_not_finite_is_a_problem(tmp_path: Path) -> None:
    """Catches weights of nan that are said to be fit for fusing."""
    good, bad = tiny_specialist(tmp_path / "good"), tiny_specialist(tmp_path / "bad", seed=1)
    weights = load_file(bad / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, bad / "model.safetensors", metadata={"format": "pt"})
    assert check([good, bad]).problems == [
        f"specialist 'bad': tensor model.norm.weight holds numbers that are not finite (nan or inf); fetch {bad} again, "
        "or take an earlier checkpoint of it"
    ]


def test_those_that_open_are_compared(tmp_path: Path) -> None:
    """Catches a specialist that cannot be opened and hides that two others have unlike vocabularies."""
    good, bad = tiny_specialist(tmp_path / "good"), tiny_specialist(tmp_path / "bad", seed=1)
    text = (bad / "tokenizer.json").read_text()
    tokenizer = json.loads(text)
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (bad / "tokenizer.json").write_text(json.dumps(tokenizer))
    report = check([good, bad, tmp_path / "none"], logit_scale=False)
    assert [row.topic for row in report.rows if row.status == "problem"] == ["files", "vocabulary"]


def test_dropped_tokens_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Catches tokens that the fused vocabulary drops without a word in the check, the card or while fusing."""
    folders = [
        tiny_specialist(tmp_path / "text"),
        tiny_specialist(
            tmp_path / "code", seed=1, tokenizer=tiny_tokenizer(extra_tokens=("<fim>", "<mid>")), dtype=torch.bfloat16
        ),
    ]
    told = "the fused vocabulary drops 2 tokens of 'code': 320 '<fim>', 321 '<mid>'"
    dtypes = "dtypes: text float32, code bfloat16; fused in float32"
    card = (fuse(folders, tmp_path / "fused") / "README.md").read_text()
    for notes in (check(folders, logit_scale=False).notes, card, caplog.text):
        assert told in notes and dtypes in notes


def test_dtypes_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Catches weights that silently take twice the room, since a few of a specialist's are float32, or that lose digits."""
    half = {"seed": 1, "dtype": torch.bfloat16}
    folders = [tiny_specialist(tmp_path / "text", **half), tiny_specialist(tmp_path / "code", **half)]
    assert not [note for note in check(folders, logit_scale=False).notes if "dtypes" in note]
    weights = load_file(folders[0] / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"].float()
    save_file(weights, folders[0] / "model.safetensors", metadata={"format": "pt"})
    told = "dtypes: text bfloat16 and float32, code bfloat16; fused in "
    notes = check(folders, logit_scale=False).notes
    assert told + "float32" in notes and not any("rounded" in note for note in notes)
    card = (fuse(folders, tmp_path / "fused", options=FuseOptions(dtype="bfloat16")) / "README.md").read_text()
    rounded = "text: weights are rounded to bfloat16, and stay so when they are extracted"
    assert f"- {told}bfloat16\n" in card and f"- {rounded}\n" in card and f"note: {rounded}" in caplog.text


def test_no_bars(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Catches transformers' own bars and reports around the table."""
    check([tiny_specialist(tmp_path / name, seed=seed) for seed, name in enumerate("ab")])
    assert "Loading weights" not in capfd.readouterr().err
