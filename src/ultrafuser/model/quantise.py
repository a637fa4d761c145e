"""Loads the specialists' linear layers in 8 or 4 bit, by bitsandbytes; the gate, the two tables and the norms stay whole."""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

import torch

from ultrafuser.errors import UserError
from ultrafuser.schema import LoadIn

KEPT_WHOLE = ["lm_head", "embed_tokens"]  # the gate's class says so itself
# On a CPU with AVX512-BF16 bitsandbytes packs 4-bit weights anew at the first use, without asking whether their shape allows it.
PACKED_OUTPUTS, PACKED_INPUTS = 32, 64  # must divide a layer's outputs and inputs


def require_quantiser(load_in: LoadIn | None) -> None:
    """Raise `UserError` if ``load_in`` wants bitsandbytes and it is not installed."""
    if load_in and importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"load_in={load_in} needs bitsandbytes; install it with: pip install 'ultrafuser[quant]'")


def quantised(load_in: LoadIn | None, device: torch.device, compute_dtype: torch.dtype) -> dict[str, Any]:
    """The options of ``from_pretrained`` for weights quantised on ``device``, computing in ``compute_dtype``; {} without."""
    require_quantiser(load_in)
    if load_in is None:
        return {}
    from transformers import BitsAndBytesConfig

    # In 8 bit it warns at every layer of every step that it casts to float16, which is how it works.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    quantisation = BitsAndBytesConfig(
        load_in_8bit=load_in == "8bit",
        load_in_4bit=load_in == "4bit",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=compute_dtype,
        llm_int8_skip_modules=KEPT_WHOLE,
    )
    return {"quantization_config": quantisation, "device_map": {"": device}}


def leave_unpacked(model: torch.nn.Module) -> None:
    """Keep bitsandbytes from packing what it cannot pack (above), in a model just loaded with `quantised`."""
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu") and (
            layer.out_features % PACKED_OUTPUTS or layer.in_features % PACKED_INPUTS
        ):
            layer.support_avx512bf16_for_cpu = False
