"""Every file of a fused checkpoint that is not weights: configuration, tokenizer, code, model card, and each specialist's own.

config.json  generation_config.json  tokenizer files  README.md  *_ultrafuser.py
specialists/<name>/    its config.json, generation_config.json, tokenizer files, template, fusion.json
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ultrafuser.io import read_json_object, write_json, write_text
from ultrafuser.model.card import model_card
from ultrafuser.model.configuration_ultrafuser import UltraFuserConfig
from ultrafuser.model.configuration_ultrafuser import write_code as write_code  # for train/result.py, too
from ultrafuser.model.lineup import LineUp
from ultrafuser.model.sources import Specialist
from ultrafuser.model.tensors import dtype_name

FUSION_FILE = "fusion.json"
COPIED_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
NOT_INHERITED = ("bos_token_id", "eos_token_id", "pad_token_id", "transformers_version", "_from_model_config")
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "top_h", "epsilon_cutoff", "eta_cutoff")


def companion_bytes(specialists: Sequence[Specialist]) -> int:
    """Disk space of the tokenizers, once each and once fused, rounded up."""
    files = [one.tokenizer_folder / name for one in specialists for name in COPIED_TOKENIZER_FILES]
    return (1 << 20) + 2 * sum(file.stat().st_size for file in files if file.is_file())


def write_companions(
    folder: Path, specialists: Sequence[Specialist], templates: Sequence[str | None], lineup: LineUp, config: UltraFuserConfig
) -> None:
    """Write all of them into ``folder``; the special token ids of ``config`` are set on the way."""
    lineup.tokenizer.save_pretrained(folder)
    config.bos_token_id = lineup.tokenizer.bos_token_id
    config.pad_token_id = lineup.tokenizer.pad_token_id
    config.save_pretrained(folder)
    write_json(folder / "generation_config.json", fused_generation(specialists, config))
    write_code(folder)
    for one, template, end in zip(specialists, templates, lineup.plan.end_sources, strict=True):
        write_own(folder / "specialists" / one.name, one, template, end_token_id=end)
    write_text(folder / "README.md", model_card(specialists, lineup, config))


def write_own(folder: Path, one: Specialist, template: str | None, *, end_token_id: int) -> None:
    """Write what a specialist needs to become a directory of its own again: all but its weights."""
    folder.mkdir(parents=True)
    copy_tokenizer(one.tokenizer_folder, folder)
    if template is not None:
        write_text(folder / "chat_template.jinja", template)
    if one.generation:
        write_json(folder / "generation_config.json", one.generation)
    # Merging an adapter or a mistaken tie may have changed these two; all else stays as it was written.
    changed = {"vocab_size": one.config.vocab_size, "tie_word_embeddings": one.tied}
    write_json(folder / "config.json", read_json_object(one.folder / "config.json") | changed)
    others = {name: dtype_name(tensor.dtype) for name, tensor in one.tensors.items() if tensor.dtype != one.dtype}
    write_json(folder / FUSION_FILE, {"dtype": dtype_name(one.dtype), "dtypes": others, "end_token_id": end_token_id})


def in_dtype(config: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """A config.json that says ``dtype``, by the one of its two names that counts."""
    return {key: value for key, value in config.items() if key != "torch_dtype"} | {"dtype": dtype_name(dtype)}


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer files, chat template included, from one directory to another."""
    for name in COPIED_TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def fused_generation(specialists: Sequence[Specialist], config: UltraFuserConfig) -> dict[str, Any]:
    """The fused generation_config.json: the settings that all specialists share, and the fused special tokens."""
    first, *others = [one.generation for one in specialists]
    common = {key: value for key, value in first.items() if all(key in own and own[key] == value for own in others)}
    skipped = NOT_INHERITED if common.get("do_sample") else (*NOT_INHERITED, *SAMPLING)
    ids = {key: getattr(config, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return {key: value for key, value in common.items() if key not in skipped} | ids
