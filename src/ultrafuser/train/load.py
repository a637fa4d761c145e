"""Loads a fused model for a stage, in the precision that the stage needs.

Moving parameters are float32 (in bfloat16 a step of 2e-5 is mostly rounded away) and compute in bfloat16 under autocast where
that is chosen. Frozen ones are held in the compute precision, or quantised by bitsandbytes. The gate is always float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ultrafuser.errors import UserError
from ultrafuser.model.load import CHECKED, require_all_weights, require_finite
from ultrafuser.model.modeling_ultrafuser import UltraFuserForCausalLM
from ultrafuser.model.quantise import leave_unpacked, quantised
from ultrafuser.model.quiet import quiet_transformers
from ultrafuser.train.processes import any_process, process_state
from ultrafuser.train.stage import Stage, TrainSettings


def computes_in_bf16(settings: TrainSettings) -> bool:
    """Does this run compute in bfloat16? ``auto`` means: on a GPU that has it."""
    if settings.mixed_precision != "auto":
        return settings.mixed_precision == "bf16"
    return process_state().device.type == "cuda" and torch.cuda.is_bf16_supported()


def load_model(folder: Path, stage: Stage, settings: TrainSettings) -> Any:
    """The fused model in ``folder``, ready for the stage.

    Raises `UserError` for weights that its files lack, have in other shapes, or that are nan or inf.
    """
    compute_dtype = torch.bfloat16 if computes_in_bf16(settings) else torch.float32
    options = quantised(settings.load_in, process_state().device, compute_dtype)
    options["dtype"] = torch.float32 if stage.moves == "all" else compute_dtype
    model: Any
    with quiet_transformers():  # the training bar is the one that is shown
        model, info = UltraFuserForCausalLM.from_pretrained(folder, **CHECKED, **options)
    require_all_weights(folder, info)
    _require_finite(folder, model)
    leave_unpacked(model)
    # Where FSDP has only the first process read the checkpoint, transformers leave the others' outermost buffers at zero.
    model.unpredictable_ids.copy_(model.make_unpredictable_ids())
    if settings.load_in:
        # Trainer refuses a quantised model without adapters. Here nothing quantised moves and the gate is an ordinary float32
        # module, so for training this is an ordinary model.
        model.is_quantized = False
    return model


def _require_finite(folder: Path, model: Any) -> None:
    """`require_finite`, on one process of each machine: under FSDP the others have read nothing. All of them stop together."""
    state, found = process_state(), None
    if state.is_local_main_process:
        try:
            require_finite(folder, model)
        except UserError as error:
            found = error
    if any_process(found is not None, state.device):
        raise found or UserError(f"{folder}: holds numbers that are not finite (nan or inf); fetch it again")
