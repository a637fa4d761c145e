"""What moves in a stage: the gate, low-rank updates of the specialists' linear layers, or everything."""

from __future__ import annotations

import re
import warnings
from typing import Any

import torch
from torch import nn

from ultrafuser.errors import UserError
from ultrafuser.model.layout import GATE_PREFIX
from ultrafuser.train.stage import Stage

ADAPTED_LAYERS = r".*\.layers\.\d+\..*_proj"  # attention and MLP of every supported architecture


def is_fused(model: nn.Module) -> bool:
    """Is this a fused model (or one with adapters), rather than an ordinary causal LM?"""
    return getattr(getattr(model, "config", None), "model_type", None) == "ultrafuser"


def set_in_motion(model: Any, stage: Stage) -> Any:
    """Make exactly the stage's parameters require gradients. Returns the model to train: with adapters for ``lora``.

    Raises `UserError` if an ordinary causal LM is given a stage that moves the gate only.
    """
    if stage.moves == "gate" and not is_fused(model):
        raise UserError(f"stage '{stage.name}' moves the gate, but a {type(model).__name__} has none; use moves='all'")
    if stage.moves == "lora":
        model = _with_adapters(model, stage)
    for name, parameter in model.named_parameters():
        frozen = not (stage.moves == "all" or GATE_PREFIX in name or "lora_" in name)
        if parameter.requires_grad == frozen:  # a quantised parameter must not even be told that it stays frozen
            parameter.requires_grad_(not frozen)
    return model


def _with_adapters(model: Any, stage: Stage) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=stage.lora_rank, lora_alpha=stage.lora_alpha, target_modules=ADAPTED_LAYERS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by names that are going away
        return get_peft_model(model, config)


def moving(model: Any) -> dict[str, torch.Tensor]:
    """The parameters that a stage moves, by name, as they are (on the device, perhaps sharded). Tied ones appear once."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def moved_weights(model: nn.Module, stage: Stage) -> dict[str, torch.Tensor]:
    """What a finished stage has changed, whole and on the CPU, by the names that the checkpoint uses.

    A collective operation when the parameters are sharded: call it on every process.
    """
    adapted = re.compile(ADAPTED_LAYERS + r"\.weight")
    moved = {}
    for name, parameter in model.named_parameters():
        if stage.moves == "all" or name.startswith(GATE_PREFIX) or (stage.moves == "lora" and adapted.fullmatch(name)):
            whole = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
            moved[name] = whole.detach().cpu()
    return moved
