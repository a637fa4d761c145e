"""A specialist given as base + LoRA adapter: its weights are merged tensor by tensor while they are read.

W' = W + s B A,  s = alpha / r  (or alpha / sqrt(r) with rank-stabilised LoRA), in float32 and rounded once to W's dtype.

Notation: r rank, B (out, r), A (r, in), W (out, in).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ultrafuser.errors import UserError
from ultrafuser.io import read_json_object
from ultrafuser.model.tensors import AnyTensor, ComputedTensor, StoredTensor, Tensors, cast, read_header

CONFIG_FILE, WEIGHTS_FILE, PICKLED_FILE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
# Each of these changes what the adapter computes, so that W + s B A would be silently wrong.
UNSUPPORTED = (
    "use_dora",
    "fan_in_fan_out",
    "lora_bias",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
    "alora_invocation_tokens",
    "use_qalora",
    "use_bdlora",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
)
PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")  # other starts change the base's weights too


def is_adapter(folder: Path) -> bool:
    """Does ``folder`` hold an adapter?"""
    return (folder / CONFIG_FILE).is_file()


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """The adapter's configuration. Raises `UserError` if it is not a plain LoRA, naming the setting."""
    config = read_json_object(folder / CONFIG_FILE)
    where = folder / CONFIG_FILE
    if config.get("peft_type") != "LORA":
        raise UserError(
            f"{where}: peft_type {config.get('peft_type')!r} is not supported, only LORA; merge it into its base first"
        )
    wrong = [key for key in UNSUPPORTED if config.get(key)]
    wrong += [f"bias={config['bias']}"] if config.get("bias", "none") != "none" else []
    start = config.get("init_lora_weights", True)
    wrong += [] if start in PLAIN_STARTS else [f"init_lora_weights={start}"]
    if wrong:
        raise UserError(f"{where}: {', '.join(wrong)}: only plain LoRA can be merged here; merge it into its base first")
    if not config.get("base_model_name_or_path"):
        raise UserError(f"{where}: base_model_name_or_path is not set; write there which model the adapter belongs to")
    return config


def merge_adapter(folder: Path, config: Mapping[str, Any], base: Tensors, *, tied: bool) -> Tensors:
    """``base`` with the adapter in ``folder`` merged into it; nothing is computed before rows are read.

    Whole tensors in the adapter (``modules_to_save``) replace the base's. Raises `UserError` for tensors that fit nowhere.
    """
    if not (folder / WEIGHTS_FILE).is_file():
        if (folder / PICKLED_FILE).is_file():
            raise UserError(f"{folder / PICKLED_FILE}: pickled weights can run code when loaded; save the adapter as safetensors")
        raise UserError(f"{folder}: an adapter without its weights, {WEIGHTS_FILE}; fetch it again")
    whole, pairs = _sort_out(folder, base)
    touched = {name for name in (*whole, *pairs) if name in ("model.embed_tokens.weight", "lm_head.weight")}
    if tied and touched:
        raise UserError(f"{folder}: changes {', '.join(sorted(touched))}, which its base ties; merge it into its base first")
    merged = base | {name: cast(tensor, base[name].dtype) for name, tensor in whole.items()}
    for name, (a, b, transposed) in pairs.items():
        _require_fitting(folder, name, merged[name], a, b, transposed)
        try:
            scale = _scale(config, name.removesuffix(".weight"), rank=a.shape[0])
        except (TypeError, ValueError, AttributeError, re.error) as error:
            raise UserError(f"{folder / CONFIG_FILE}: its lora_alpha or alpha_pattern is not valid ({error})") from None
        merged[name] = _with_low_rank(merged[name], a, b, scale, transposed)
    return merged


def _sort_out(folder: Path, base: Tensors) -> tuple[Tensors, dict[str, tuple[StoredTensor, StoredTensor, bool]]]:
    """Split the adapter's tensors into whole ones and (A, B, is an embedding) pairs, by the name of the base's tensor."""
    whole: Tensors = {}
    halves: dict[tuple[str, str], StoredTensor] = {}
    for name, tensor in read_header(folder / WEIGHTS_FILE).items():
        target = name.removeprefix("base_model.model.").replace(".base_layer.", ".")
        low_rank = re.fullmatch(r"(.+)\.lora_(A|B|embedding_A|embedding_B)(?:\.weight)?", target)
        if low_rank and f"{low_rank[1]}.weight" in base:
            halves[f"{low_rank[1]}.weight", low_rank[2]] = tensor
        elif target in base:
            whole[target] = tensor
        else:
            raise UserError(f"{folder / WEIGHTS_FILE}: tensor {name} belongs to nothing in the base model")
    pairs = {}
    for target, kind in halves:
        prefix = kind[:-1]
        if not {(target, f"{prefix}A"), (target, f"{prefix}B")} <= halves.keys():
            raise UserError(f"{folder / WEIGHTS_FILE}: {target}: only one half of its low-rank pair is there")
        pairs[target] = (halves[target, f"{prefix}A"], halves[target, f"{prefix}B"], prefix != "")
    return whole, pairs


def _scale(config: Mapping[str, Any], module: str, *, rank: int) -> float:
    """s of the module docstring; ``alpha_pattern`` maps patterns of module names to alphas of their own."""
    patterns: dict[str, float] = config.get("alpha_pattern") or {}
    own = (alpha for pattern, alpha in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module))
    alpha = next(own, config.get("lora_alpha", 8))
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _require_fitting(folder: Path, name: str, base: AnyTensor, a: StoredTensor, b: StoredTensor, transposed: bool) -> None:
    """Raise `UserError` unless B A has the shape of ``base``."""
    rank = a.shape[0] if a.shape else 0
    wanted = ((rank, base.shape[0]), (base.shape[-1], rank)) if transposed else ((rank, base.shape[-1]), (base.shape[0], rank))
    if not rank or (a.shape, b.shape) != wanted:
        shapes = f"shapes {list(a.shape)} and {list(b.shape)}"
        raise UserError(f"{folder}: the low-rank pair of {name} has {shapes}, which do not fit its base's {list(base.shape)}")


def _with_low_rank(base: AnyTensor, a: StoredTensor, b: StoredTensor, scale: float, transposed: bool) -> ComputedTensor:
    """``base`` + scale B A. An embedding's pair is stored transposed: its rows are those of A^T."""

    def read(start: int, stop: int) -> torch.Tensor:
        left = a.rows(0, a.shape[0])[:, start:stop].T if transposed else b.rows(start, stop)  # (rows, r)
        right = b.rows(0, b.shape[0]).T if transposed else a.rows(0, a.shape[0])  # (r, in)
        return (base.rows(start, stop).float() + scale * (left.float() @ right.float())).to(base.dtype)

    return ComputedTensor(base.dtype, base.shape, read)
