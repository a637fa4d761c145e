"""Loads a model and its tokenizer to be used: fused or any other causal LM, from a directory or the hub."""

from __future__ import annotations

import gc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM

import ultrafuser.model  # noqa: F401  (registers the Auto classes)
from ultrafuser.errors import UserError, did_you_mean, first_line, plural
from ultrafuser.io import user_path
from ultrafuser.model.quantise import leave_unpacked, quantised
from ultrafuser.model.quiet import quiet_transformers
from ultrafuser.model.sources import locate, read_tokenizer
from ultrafuser.model.tensors import FLOATS, SINGLE_FILE, is_finite, read_header, refuse_pickled
from ultrafuser.schema import LoadIn

# Options of ``from_pretrained``: no pickled weights, and `require_all_weights` tells what does not fit, in one line.
CHECKED = {"use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}


def load(model: str | Path, *, dtype: str = "auto", device: str = "auto", load_in: LoadIn | None = None) -> tuple[Any, Any]:
    """The model, ready for inference, and its tokenizer. Remote code is never run, pickled weights are never read.

    Args:
        dtype: a torch dtype's name; ``auto`` is that of the files.
        device: a torch device's name; ``auto`` is the first accelerator, else the CPU.
        load_in: quantise the linear layers while they are read, as in the gate stage (`quantise.quantised`).

    Raises:
        UserError: no such model, not a model directory, files that do not load, no such device, no bitsandbytes.
    """
    place = find_device(device)
    folder = model_folder(model)
    if not any(folder.glob("*.safetensors")):
        refuse_pickled(model, (file.name for file in folder.iterdir()))
        raise UserError(f"{model}: cannot be loaded (there are no weights, such as {SINGLE_FILE})")
    options = quantised(load_in, place, _compute_dtype(dtype, place))
    try:
        with quiet_transformers():
            AutoConfig.from_pretrained(folder)  # first: what is wrong with it would be told of the tokenizer
            tokenizer = read_tokenizer(folder)
            loaded, info = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **CHECKED, **options)
    except UserError:
        raise
    except Exception as error:  # many kinds, for whatever is wrong with the files
        if isinstance(error, SafetensorError):  # it does not say of which file
            _require_whole(folder)
        raise UserError(f"{model}: cannot be loaded ({first_line(error)})") from None
    require_all_weights(model, info)
    require_finite(model, loaded)
    leave_unpacked(loaded)
    return (loaded if load_in else loaded.to(place)).eval(), tokenizer


def _require_whole(folder: Path) -> None:
    """Raise `UserError` for a file of weights that is truncated or none."""
    for file in sorted(folder.glob("*.safetensors")):
        read_header(file)


def require_all_weights(model: str | Path, info: Mapping[str, Any]) -> None:
    """Raise `UserError` for weights that transformers did not find, or not in the model's shape, by their loading info.

    Random numbers are in their place.
    """
    for name, stored, wanted in sorted(info["mismatched_keys"]):
        shapes = f"shape {list(stored)}, its config.json promises {list(wanted)}"
        raise UserError(f"{model}: tensor {name} has {shapes}; fetch it again")
    if lacking := sorted(info["missing_keys"]):
        raise UserError(f"{model}: its files lack {plural(len(lacking), 'weight')}, such as {lacking[0]}; fetch it again")


def require_finite(given: str | Path, model: torch.nn.Module) -> None:
    """Raise `UserError` for weights that are nan or inf: such a model answers, but nonsense."""
    for name, parameter in model.named_parameters():
        if parameter.dtype in FLOATS and not is_finite(parameter.detach()):
            raise UserError(f"{given}: tensor {name} holds numbers that are not finite (nan or inf); fetch it again")


def _compute_dtype(dtype: str, place: torch.device) -> torch.dtype:
    """What quantised layers compute in: as told, else bfloat16 where the device has it."""
    if dtype != "auto":
        named: torch.dtype = getattr(torch, dtype)
        return named
    return torch.bfloat16 if place.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def find_device(device: str) -> torch.device:
    """The device of this name; ``auto`` is the first accelerator, else the CPU. Raises `UserError` when there is none."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if device == "auto":
        return accelerator or torch.device("cpu")
    try:
        place = torch.device(device)
    except RuntimeError:
        raise UserError(f"--device {device}: no such kind of device; give cpu, cuda, cuda:1, mps or auto") from None
    if place.type != "cpu" and (accelerator is None or accelerator.type != place.type):
        raise UserError(f"--device {device}: there is none here; give --device {accelerator or 'cpu'}")
    count = 1 if place.type == "cpu" else torch.accelerator.device_count()
    if (place.index or 0) >= count:
        raise UserError(f"--device {device}: the highest number here is {count - 1}; give --device {place.type}:{count - 1}")
    return place


def free_memory() -> None:
    """Give the memory of models that are no longer used back to the device."""
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def model_folder(model: str | Path) -> Path:
    """The directory of a model, downloaded if it is on the hub. Raises `UserError` if there is none or it holds no model."""
    path = user_path(model)
    beside = path.parent.glob("*/") if os.access(path.parent, os.F_OK) else ()  # a long prompt in its place is no path at all
    near = did_you_mean(str(path), [str(file) for file in beside if (file / "config.json").is_file()])
    local = near or (len(path.parts) > 1 and os.access(path.parent, os.F_OK))  # and not an id of the hub
    if local and not os.access(path, os.F_OK):
        raise UserError(f"{model}: no such directory{near}")
    folder = locate(str(model))
    if not (folder / "config.json").is_file():
        raise UserError(f"{model}: no config.json; give the directory of a model")
    return folder
