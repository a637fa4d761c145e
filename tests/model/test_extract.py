"""Extracting gives back what was fused, bit for bit, and what was trained after joint training."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tiny import tiny_specialist, tiny_tokenizer
from ultrafuser.errors import UserError
from ultrafuser.model.extract import extract
from ultrafuser.model.fuse import FuseOptions, fuse

NAMES = ("text", "code", "math", "half", "mixed")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five unlike specialists (tied, padded rows, own tokens, dtypes, width) and the model fused of them."""
    root = tmp_path_factory.mktemp("extract")
    own_tokens = tiny_tokenizer("chatml", extra_tokens=("<PRE>", "<SUF>"))
    folders = [
        tiny_specialist(root / "text", "llama", 0, template="user"),
        tiny_specialist(root / "code", "qwen2", 1, template="chatml", tie=True, vocab_size=352, tokenizer=own_tokens),
        tiny_specialist(root / "math", "mistral", 2, template="inst", hidden_size=48, num_hidden_layers=3, vocab_size=330),
        tiny_specialist(root / "half", "qwen3", 3, template="user", dtype=torch.bfloat16),
        mixed(tiny_specialist(root / "mixed", "llama", 4, template="user", vocab_size=340)),
    ]
    fuse(folders, root / "fused")
    return root


def mixed(folder: Path) -> Path:
    """The specialist with its large matrices in bfloat16, and its norms and lm_head as they were, in float32."""
    kept = ("norm", "lm_head")
    tensors = {name: tensor if any(one in name for one in kept) else tensor.bfloat16() for name, tensor in load(folder).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def load(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.mark.parametrize("name", NAMES)
def test_bit_identical(root: Path, tmp_path: Path, name: str) -> None:
    """Catches a lost row, a wrong column, a changed dtype, a tie written as two tables, and another tokenizer or template."""
    out = extract(root / "fused", name, tmp_path / name)
    before, after = load(root / name), load(out)
    assert (out / "model.safetensors").read_bytes() == (root / name / "model.safetensors").read_bytes()
    assert before.keys() == after.keys()
    assert all(before[key].dtype == after[key].dtype and torch.equal(before[key], after[key]) for key in before)
    ids = torch.tensor([[3, 50, 200, 319]])
    with torch.no_grad():
        logits = [AutoModelForCausalLM.from_pretrained(folder)(ids).logits for folder in (root / name, out)]
    assert torch.equal(*logits)
    own, given = AutoTokenizer.from_pretrained(root / name), AutoTokenizer.from_pretrained(out)
    chat = [{"role": "user", "content": "What is 12 and 30?"}, {"role": "assistant", "content": "42"}]
    assert own.get_vocab() == given.get_vocab()
    assert own.apply_chat_template(chat, tokenize=False) == given.apply_chat_template(chat, tokenize=False)
    assert {path.name for path in out.iterdir()} == {path.name for path in (root / name).iterdir()}


@pytest.mark.parametrize(("name", "told"), [("text", "float32 to bfloat16"), ("half", ""), ("mixed", "float32 to bfloat16")])
def test_what_was_rounded_is_told(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, told: str) -> None:
    """Catches rounded numbers given back as if they were the exact ones, and exact ones said to be rounded."""
    fused = fuse([root / "text", root / "half", root / "mixed"], tmp_path / "fused", options=FuseOptions(dtype="bfloat16"))
    caplog.clear()
    out = extract(fused, name, tmp_path / name)
    before, after = load(root / name), load(out)
    assert before.keys() == after.keys() and {tensor.dtype for tensor in after.values()} == {torch.bfloat16}
    assert all(torch.equal(before[key].bfloat16(), after[key]) for key in before)
    assert caplog.messages == ([f"note: {name}: fusing has rounded its weights from {told}; they stay so"] if told else [])
    assert AutoModelForCausalLM.from_pretrained(out).dtype == torch.bfloat16


@pytest.mark.parametrize("name", NAMES)
def test_from_shards_of_save_pretrained(root: Path, tmp_path: Path, name: str) -> None:
    """Catches a reader that knows only the files that `fuse` writes."""
    saved = tmp_path / "saved"
    AutoModelForCausalLM.from_pretrained(root / "fused").save_pretrained(saved, max_shard_size="100KB")
    shutil.copytree(root / "fused" / "specialists", saved / "specialists")
    before, after = load(root / name), load(extract(saved, name, tmp_path / name))
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_after_joint_training(root: Path, tmp_path: Path) -> None:
    """Catches a tied specialist whose two tables have been trained apart written as one, and an end token left untrained."""
    model = AutoModelForCausalLM.from_pretrained(root / "fused")
    columns, end = slice(32, 64), model.config.slot_start
    with torch.no_grad():
        model.lm_head.weight[7, columns] += 1
        model.lm_head.weight[end, columns] += 2
        model.model.embed_tokens.weight[end, columns] += 3
        model.model.layers[2].mlp.up_proj.weight += 4
    model.save_pretrained(tmp_path / "trained")
    shutil.copytree(root / "fused" / "specialists", tmp_path / "trained" / "specialists")
    before = load(root / "code")
    out = extract(tmp_path / "trained", "code", tmp_path / "code")
    after, head = load(out), before["model.embed_tokens.weight"].clone()
    head[7] += 1
    head[4] += 2  # <|im_end|>, the end of its turns
    embedding = before["model.embed_tokens.weight"].clone()
    embedding[4] += 3
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False
    assert torch.equal(after["lm_head.weight"], head) and torch.equal(after["model.embed_tokens.weight"], embedding)
    name = "model.layers.0.mlp.up_proj.weight"
    assert torch.equal(after[name], before[name] + 4)


def test_bad_input(root: Path, tmp_path: Path) -> None:
    """Catches a traceback for a misspelt name, a model that is not fused, or a fused one without its specialists' files."""
    with pytest.raises(UserError, match="no specialist 'coda'; it has text, code, math, half, mixed; did you mean 'code'"):
        extract(root / "fused", "coda", tmp_path / "out")
    with pytest.raises(UserError, match="not a fused model"):
        extract(root / "text", "code", tmp_path / "out")
    with pytest.raises(UserError, match="no such directory"):
        extract(root / "none", "code", tmp_path / "out")
    for out in (root / "fused", root, root / "fused" / "specialists", root / "fused" / "config.json"):
        with pytest.raises(UserError, match=r"is or holds .*fused\S*, which is read from"):
            extract(root / "fused", "code", out, overwrite=True)
    AutoModelForCausalLM.from_pretrained(root / "fused").save_pretrained(tmp_path / "bare")
    with pytest.raises(UserError, match="copy the folder 'specialists'"):
        extract(tmp_path / "bare", "code", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"bare"}


def directories_listed(call: Callable[[], object]) -> set[Path]:
    """Those that the interpreter looks into while ``call`` runs. (An audit hook stays for good, so it is told when to stop.)"""
    listed: set[Path] = set()
    listening = [True]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if listening and event in ("os.scandir", "os.listdir"):
            listed.add(Path(str(arguments[0])))

    sys.addaudithook(hook)
    try:
        call()
    finally:
        listening.clear()
    return listed


def test_nothing_is_searched_that_is_no_part_of_the_model(root: Path, tmp_path: Path) -> None:
    """Catches a search of the whole disk before '/' is refused, or of all that a run has left beside its model."""
    (tmp_path / "wrong" / "deep" / "deeper").mkdir(parents=True)

    def refused() -> None:
        with pytest.raises(UserError, match=r"wrong/config\.json: no such file"):
            extract(tmp_path / "wrong", "text", tmp_path / "out")

    assert not {path for path in directories_listed(refused) if path.is_relative_to(tmp_path)}
    shutil.copytree(root / "fused", model := tmp_path / "model")
    (model / "training" / "deep" / "deeper").mkdir(parents=True)
    listed = directories_listed(lambda: extract(model, "text", tmp_path / "out"))
    assert model in listed and not {path for path in listed if path.is_relative_to(model / "training")}


def test_a_part_that_is_linked_is_not_replaced(root: Path, tmp_path: Path) -> None:
    """Catches --overwrite of a directory that holds what a model's files or its specialists' are links to."""
    for part in ("gate.safetensors", "specialists/text/fusion.json", "specialists/code/config.json"):
        shutil.copytree(root / "fused", model := tmp_path / "model")
        (tmp_path / "kept").mkdir()
        (model / part).rename(target := tmp_path / "kept" / "part")
        (model / part).symlink_to(target)
        with pytest.raises(UserError, match=r"kept: is or holds .*, which is read from; choose another output"):
            extract(model, "text", tmp_path / "kept", overwrite=True)
        assert target.is_file()
        shutil.rmtree(model), shutil.rmtree(tmp_path / "kept")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("specialists/text/fusion.json", {}, "fusion.json: is damaged; copy it"),
        ("specialists/text/fusion.json", {"dtype": "flat", "end_token_id": 2}, "fusion.json: is damaged; copy it"),
        ("specialists/text/fusion.json", {"dtype": [1], "end_token_id": 2}, "fusion.json: is damaged; copy it"),
        (
            "specialists/text/fusion.json",
            {"dtype": "float32", "dtypes": [1], "end_token_id": 2},
            "fusion.json: is damaged; copy it",
        ),
        ("specialists/text/fusion.json", {"dtype": "float32", "end_token_id": True}, "fusion.json: is damaged; copy it"),
        ("specialists/text/fusion.json", {"dtype": "float32", "end_token_id": 10**9}, "an end of turn, 1000000000, that is no"),
        ("specialists/text/config.json", [], "config.json: must hold keys with their values"),
        ("config.json", {"model_type": "ultrafuser", "specialists": [{}]}, "config.json: not accepted .*architecture None"),
        ("config.json", {"model_type": "ultrafuser", "specialist_names": ["text"]}, "1 specialist_names for 0 specialists"),
        ("config.json", {"model_type": "ultrafuser", "specialist_names": [1]}, "specialist_names must be a list of texts"),
    ],
)
def test_damaged_configuration(root: Path, tmp_path: Path, file: str, content: object, message: str) -> None:
    """Catches a traceback for files beside the weights that are not what `fuse` wrote."""
    shutil.copytree(root / "fused", tmp_path / "damaged")
    (tmp_path / "damaged" / file).write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        extract(tmp_path / "damaged", "text", tmp_path / "out")


def test_tensor_of_another_shape(root: Path, tmp_path: Path) -> None:
    """Catches a specialist that is written with a tensor that no model of its configuration takes."""
    shutil.copytree(root / "fused", tmp_path / "damaged")
    weights = tmp_path / "damaged" / "model-00001-of-00001.safetensors"
    save_file(load_file(weights) | {"model.norms.0.weight": torch.ones(7)}, weights)
    with pytest.raises(UserError, match=r"damaged: tensor model.norms.0.weight has shape \[7\], its config.json promises \[32\]"):
        extract(tmp_path / "damaged", "text", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]
