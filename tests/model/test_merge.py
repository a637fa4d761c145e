"""Average merging, against the mean taken in memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tiny import tiny_specialist, tiny_tokenizer
from ultrafuser.errors import UserError
from ultrafuser.model.merge import average_merge

HEAD = "lm_head.weight"


def test_mean_of_all_weights(tmp_path: Path) -> None:
    """Catches a sum, a weighted mean, a rounding between specialists, and a tokenizer or template that is not the first's."""
    folders = [tiny_specialist(tmp_path / name, seed=seed, dtype=torch.bfloat16) for seed, name in enumerate("abc")]
    out = average_merge(folders, tmp_path / "mean")
    merged = load_file(out / "model.safetensors")
    own = [load_file(folder / "model.safetensors") for folder in folders]
    assert merged.keys() == own[0].keys()
    for name, tensor in merged.items():
        assert torch.equal(tensor, (sum(one[name].float() for one in own) / 3).bfloat16()), name
    assert AutoModelForCausalLM.from_pretrained(out).config.model_type == "llama"
    assert AutoTokenizer.from_pretrained(out).chat_template == AutoTokenizer.from_pretrained(folders[0]).chat_template


def test_every_tensor_in_its_own_dtype(tmp_path: Path) -> None:
    """Catches float32 norms rounded to the dtype of the tables, and a config that has all of them read in another."""
    folders = [tiny_specialist(tmp_path / name, seed=seed, dtype=torch.bfloat16) for seed, name in enumerate("ab")]
    norm, table, matrix = "model.norm.weight", "model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight"
    for folder, wide in zip(folders, ([norm], [norm, table]), strict=True):
        tensors = load_file(folder / "model.safetensors")
        save_file(tensors | {name: tensors[name].float() + 1e-4 for name in wide}, folder / "model.safetensors")
    merged = load_file(average_merge(folders, tmp_path / "mean") / "model.safetensors")
    own = [load_file(folder / "model.safetensors") for folder in folders]
    assert (merged[norm].dtype, merged[table].dtype, merged[matrix].dtype) == (torch.float32, torch.float32, torch.bfloat16)
    for name in merged:
        assert torch.equal(merged[name], (sum(one[name].float() for one in own) / 2).to(merged[name].dtype)), name
    assert json.loads((tmp_path / "mean" / "config.json").read_text())["dtype"] == "float32"


def test_rows_that_only_some_have(tmp_path: Path) -> None:
    """Catches a shifted table and rows averaged with nothing when vocabularies differ in length, as CodeLlama's does."""
    longer = tiny_tokenizer(extra_tokens=("<PRE>", "<SUF>"))
    folders = [tiny_specialist(tmp_path / "long", tokenizer=longer), tiny_specialist(tmp_path / "short", seed=1)]
    tables = [load_file(folder / "model.safetensors")[HEAD] for folder in folders]
    for order, rows in ((0, 322), (1, 320)):
        given = folders[::-1] if order else folders
        merged = load_file(average_merge(given, tmp_path / f"mean{order}") / "model.safetensors")[HEAD]
        assert merged.shape[0] == rows
        assert torch.allclose(merged[:320], (tables[0][:320] + tables[1]) / 2)
        assert torch.equal(merged[320:], tables[0][320:rows])


def test_tied_with_untied(tmp_path: Path) -> None:
    """Catches a head that is lost, or not taken from the tied one's embedding."""
    folders = [tiny_specialist(tmp_path / "tied", tie=True), tiny_specialist(tmp_path / "untied", seed=1)]
    merged = load_file(average_merge(folders, tmp_path / "mean") / "model.safetensors")
    own = [load_file(folder / "model.safetensors") for folder in folders]
    assert torch.allclose(merged[HEAD], (own[0]["model.embed_tokens.weight"] + own[1][HEAD]) / 2)
    both_tied = average_merge([folders[0], folders[0]], tmp_path / "same", names=["a", "b"])
    assert HEAD not in load_file(both_tied / "model.safetensors")


@pytest.mark.parametrize("other", [{"num_hidden_layers": 3}, {"hidden_size": 48}, {"model_type": "mistral"}])
def test_unlike_shapes_are_refused(tmp_path: Path, other: dict[str, object]) -> None:
    """Catches weights of one place averaged with those of another."""
    folders = [tiny_specialist(tmp_path / "a"), tiny_specialist(tmp_path / "b", seed=1, **other)]
    with pytest.raises(UserError, match="b and a are unlike"):
        average_merge(folders, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()
