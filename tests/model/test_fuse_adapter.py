"""Base + LoRA adapter, against PEFT's own merge."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tiny import tiny_specialist
from ultrafuser.errors import UserError
from ultrafuser.model.fuse import FuseOptions, fuse
from ultrafuser.model.sources import open_specialist

EMBEDDING = "model.embed_tokens.weight"


def make_adapter(base: Path, folder: Path, **settings: Any) -> dict[str, torch.Tensor]:
    """Save a random adapter of ``base`` to ``folder``; return the weights that PEFT merges."""
    torch.manual_seed(1)
    options = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"], "init_lora_weights": False} | settings
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**options))
    for name, parameter in model.named_parameters():
        if "modules_to_save" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    return model.merge_and_unload().state_dict()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_specialist(tmp_path_factory.mktemp("base") / "base")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.self_attn.q_proj": 11}},
        {"modules_to_save": ["lm_head"]},
        {"target_modules": ["embed_tokens", "v_proj"]},
    ],
)
def test_merges_as_peft_does(base: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    """Catches a wrong scale, rank, orientation or target, and whole tensors of the adapter that are left out."""
    expected = make_adapter(base, tmp_path / "adapter", **settings)
    actual = open_specialist(str(tmp_path / "adapter"), "a").tensors
    original = load_file(base / "model.safetensors")
    assert actual.keys() == expected.keys()
    for name, tensor in actual.items():
        half = tensor.shape[0] // 2  # in two blocks, as it is written
        read = torch.cat([tensor.rows(0, half), tensor.rows(half, tensor.shape[0])])
        assert torch.allclose(read, expected[name], atol=1e-5), name
    assert any(not torch.equal(expected[name], original[name]) for name in original)


def test_fuses_as_the_merged_model_would(base: Path, tmp_path: Path) -> None:
    """Catches an adapter that is opened but not written, and a relative base that is not found from the adapter."""
    expected = make_adapter(base, tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    (tmp_path / "beside").symlink_to(base)
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "../beside"}))
    fused = fuse([base, tmp_path / "adapter"], tmp_path / "fused")
    written = load_file(fused / "model-00001-of-00001.safetensors")
    assert torch.allclose(
        written["model.layers.3.mlp.down_proj.weight"], expected["model.layers.1.mlp.down_proj.weight"], atol=1e-5
    )
    assert "adapter on" in (fused / "README.md").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias=all"),
        ({"peft_type": "IA3"}, "'IA3' is not supported"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights=pissa"),
        ({"lora_alpha": "much"}, "lora_alpha or alpha_pattern is not valid .*'much'"),
        ({"alpha_pattern": {"(": 1}}, "lora_alpha or alpha_pattern is not valid"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path is not set"),
        ({"base_model_name_or_path": "/nowhere/base"}, "its base model cannot be opened: /nowhere/base: no such directory"),
    ],
)
def test_other_adapters_are_refused(base: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """Catches an adapter of another kind that is merged wrongly without a word."""
    make_adapter(base, tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(UserError, match=message):
        open_specialist(str(tmp_path / "adapter"), "a")


def test_adapter_of_another_model_is_refused(base: Path, tmp_path: Path) -> None:
    """Catches shapes and names that do not fit the base."""
    make_adapter(base, tmp_path / "adapter")
    other = tiny_specialist(tmp_path / "other", intermediate_size=64)
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": str(other)}))
    with pytest.raises(
        UserError, match=r"the low-rank pair of .*down_proj.* has shapes \[\d+, 48\] and .* do not fit its base's \[32, 64\]"
    ):
        open_specialist(str(tmp_path / "adapter"), "a")


@pytest.mark.parametrize(("rank", "ndim"), [(0, 2), (2, 1)])
def test_pairs_that_are_none(base: Path, tmp_path: Path, rank: int, ndim: int) -> None:
    """Catches a traceback for halves that are no matrices, or of rank 0."""
    make_adapter(base, tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    a, b = torch.ones(rank, 32), torch.ones(32, rank)
    halves = [half if ndim == 2 else half.flatten() for half in (a, b)]
    names = [f"base_model.model.model.layers.0.self_attn.q_proj.lora_{half}.weight" for half in "AB"]
    save_file(dict(zip(names, halves, strict=True)), file)
    with pytest.raises(UserError, match=r"the low-rank pair of .*q_proj.* do not fit"):
        open_specialist(str(tmp_path / "adapter"), "a")
    file.unlink()
    with pytest.raises(UserError, match=r"adapter: an adapter without its weights, adapter_model\.safetensors; fetch it again"):
        open_specialist(str(tmp_path / "adapter"), "a")


def test_tied_table_cannot_be_changed_by_an_adapter(tmp_path: Path) -> None:
    """Catches a table that is changed in one of its two uses only."""
    tied = tiny_specialist(tmp_path / "tied", "qwen2", tie=True)
    make_adapter(tied, tmp_path / "adapter", target_modules=["embed_tokens"])
    with pytest.raises(UserError, match=f"changes {EMBEDDING}, which its base ties"):
        open_specialist(str(tmp_path / "adapter"), "a")


def test_base_of_an_adapter_is_never_replaced(base: Path, tmp_path: Path) -> None:
    """Catches an adapter's base, which nobody named, overwritten by what was made of it."""
    own = shutil.copytree(base, tmp_path / "own")
    make_adapter(own, tmp_path / "adapter")
    with pytest.raises(UserError, match="own: is or holds"):
        fuse([base, tmp_path / "adapter"], own, options=FuseOptions(overwrite=True))
    assert (own / "model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()
