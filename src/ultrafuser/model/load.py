"""Loads a model and its tokenizer to be used: fused or any other causal LM, from a directory or the hub."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import ultrafuser.model  # noqa: F401  (registers the Auto classes)
from ultrafuser.errors import UserError, did_you_mean
from ultrafuser.model.quantise import quantised
from ultrafuser.model.quiet import quiet_transformers
from ultrafuser.model.sources import locate
from ultrafuser.model.tensors import refuse_pickled
from ultrafuser.schema import LoadIn


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
    options = quantised(load_in, place, _compute_dtype(dtype, place))
    options |= {"dtype": dtype, "use_safetensors": True, "output_loading_info": True}
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder)
            loaded, info = AutoModelForCausalLM.from_pretrained(folder, **options)
    except Exception as error:  # many kinds, for whatever is wrong with the files
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(f"{model}: cannot be loaded ({reason})") from None
    require_all_weights(model, info)
    return (loaded if load_in else loaded.to(place)).eval(), tokenizer


def require_all_weights(model: str | Path, info: Mapping[str, Any]) -> None:
    """Raise `UserError` for weights that transformers did not find, by their loading info: random numbers are in their place."""
    if lacking := sorted(info["missing_keys"]):
        raise UserError(f"{model}: its files lack {len(lacking)} weights, such as {lacking[0]}; fetch it again")


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
    if (place.index or 0) >= (torch.accelerator.device_count() if place.type != "cpu" else 1):
        raise UserError(f"--device {device}: there are only {torch.accelerator.device_count()} of them, counted from 0")
    return place


def free_memory() -> None:
    """Give the memory of models that are no longer used back to the device."""
    gc.collect()
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def model_folder(model: str | Path) -> Path:
    """The directory of a model, downloaded if it is on the hub. Raises `UserError` if there is none or it holds no model."""
    path = Path(model).expanduser()
    here = [str(file) for file in path.parent.glob("*/") if (file / "config.json").is_file()]
    near = did_you_mean(str(path), here)
    if not path.exists() and (near or (len(path.parts) > 1 and path.parent.is_dir())):  # a local path, not an id of the hub
        raise UserError(f"{model}: no such directory{near}")
    folder = locate(str(model))
    if not (folder / "config.json").is_file():
        raise UserError(f"{model}: no config.json; give the directory of a model")
    return folder
