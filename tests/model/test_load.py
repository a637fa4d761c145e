"""Loading a model for use: files that do not fit are told in one line that names the file or the tensor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tiny import tiny_specialist
from ultrafuser.errors import UserError
from ultrafuser.model.extract import extract
from ultrafuser.model.fuse import FuseOptions, fuse
from ultrafuser.model.load import load
from ultrafuser.model.quantise import leave_unpacked

GATE, WEIGHTS = "gate.safetensors", "model-00001-of-00001.safetensors"


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fused")
    own = [tiny_specialist(root / name, seed=seed) for seed, name in enumerate("ab")]
    return fuse(own, root / "fused", options=FuseOptions(gate_hidden_size=8))


def tensors_in(name: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / name)
        change(tensors)
        save_file(tensors, folder / name, metadata={"format": "pt"})

    return damage


def cut(name: str, bytes_left: int) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:bytes_left])


NORM, INNER = "model.norms.1.weight", "model.gate.linear_in.weight"
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "shape": (tensors_in(WEIGHTS, lambda t: t.update({NORM: torch.ones(7)})), rf"{NORM} has shape \[7\], .* \[32\]; fetch"),
    "gate": (tensors_in(GATE, lambda t: t.update({INNER: torch.ones(8, 5)})), rf"{INNER} has shape \[8, 5\], .* \[8, 32\]"),
    "nan": (tensors_in(WEIGHTS, lambda t: t[NORM].fill_(float("nan"))), f"{NORM} holds numbers that are not finite .*; fetch it"),
    "one missing": (tensors_in(WEIGHTS, lambda t: t.pop(NORM)), f"lack 1 weight, such as {NORM}; fetch it again"),
    "truncated": (cut(WEIGHTS, 9000), f"{WEIGHTS}: truncated: it should have .* bytes but has 9,000; fetch it again"),
    "header truncated": (cut(GATE, 20), f"{GATE}: truncated: not even its header is complete; fetch it again"),
    "empty": (cut(GATE, 0), f"{GATE}: truncated: "),
    "no tokenizer": (lambda folder: [file.unlink() for file in folder.glob("token*")], r"no tokenizer \(tokenizer.json, .*copy"),
    "no weights": (lambda folder: [file.unlink() for file in folder.glob("*.safetensors")], "loaded .there are no weights, such"),
    "shard missing": (lambda folder: (folder / WEIGHTS).unlink(), WEIGHTS),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_told_in_one_line(fused: Path, tmp_path: Path, fault: str) -> None:
    """Catches random numbers in the place of weights, and transformers' words, which point to a report that is not shown."""
    damage, message = FAULTS[fault]
    shutil.copytree(fused, bad := tmp_path / "bad")
    damage(bad)
    with pytest.raises(UserError, match=message) as caught:
        load(bad)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(bad))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"masked_token_ids": [-1]}, "masked_token_ids has -1, which is no token's id"),
        ({"masked_token_ids": "12"}, "masked_token_ids must be a list of whole numbers"),
        ({"masked_token_ids": [2.5]}, "masked_token_ids must be a list of whole numbers"),
        ({"slot_start": 319, "slot_visibility": [[1]]}, "slot_visibility must have rows of 2 zeros and ones, one per specialist"),
        ({"slot_start": 319, "slot_visibility": [[1, 2]]}, "slot_visibility must have rows of 2 zeros and ones"),
        ({"slot_visibility": [1]}, "slot_visibility must be a list of lists"),
        ({"slot_start": -4}, "slot_start is -4; it must be a whole number, at least 0"),
        ({"vocab_size": "many"}, "vocab_size is 'many'; it must be a whole number, at least 1"),
        ({"gate_hidden_size": True}, "gate_hidden_size is True; it must be"),
        ({"specialists": 5}, "specialists must be a list of configurations"),
    ],
)
def test_damaged_configuration(fused: Path, tmp_path: Path, damage: dict[str, object], message: str) -> None:
    """Catches a traceback for an id outside the tables, and one specialist's row taken for those of all."""
    shutil.copytree(fused, bad := tmp_path / "bad")
    (bad / "config.json").write_text(json.dumps(json.loads((bad / "config.json").read_text()) | damage))
    for read in (load, lambda folder: extract(folder, "a", tmp_path / "out")):
        with pytest.raises(UserError, match=message) as caught:
            read(bad)
        assert "\n" not in str(caught.value) and str(caught.value).startswith(str(bad))


def test_layers_that_cannot_be_packed_are_left_alone() -> None:
    """Catches a failed assertion of bitsandbytes in 4 bit on a CPU with AVX512-BF16, at layers smaller than its blocks."""
    shapes = {(64, 32): True, (128, 96): True, (64, 48): False, (32, 32): False}
    layers = torch.nn.ModuleList(torch.nn.Linear(*shape) for shape in shapes)
    for layer in layers:
        layer.support_avx512bf16_for_cpu = True
    leave_unpacked(torch.nn.Sequential(torch.nn.Linear(3, 3), layers))
    assert [layer.support_avx512bf16_for_cpu for layer in layers] == list(shapes.values())
