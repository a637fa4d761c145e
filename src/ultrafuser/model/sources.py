"""Specialists as they are given: a local directory, a hub id, or base + LoRA adapter. Opened without reading weights.

Every mistake that can be seen from the files is found here, before anything is written: the issue's list of bad input.
"""

from __future__ import annotations

import copy
import os
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig

from ultrafuser import hub
from ultrafuser.errors import UserError, first_line, plural
from ultrafuser.io import is_directory, read_json_object, user_path
from ultrafuser.model.adapters import is_adapter, merge_adapter, read_adapter_config
from ultrafuser.model.config_numbers import require_possible_numbers
from ultrafuser.model.configuration_ultrafuser import SUPPORTED_ARCHITECTURES, UltraFuserConfig
from ultrafuser.model.tensors import FLOATS, INDEX_FILE, SINGLE_FILE, Tensors, finite, open_checkpoint, refuse_pickled, same_bytes

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
HUB_IGNORED = ["*/*", "consolidated*", "*.bin.index.json"]  # the same weights once more, in other formats
TOKENIZER_SIGNS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json")  # any of them: there is one


@dataclass(frozen=True)
class Specialist:
    """One specialist, opened: everything but its weights is in memory, its weights are named byte ranges."""

    name: str
    given: str  # as the user wrote it
    folder: Path  # of its configuration and weights; of its base for an adapter
    tokenizer_folder: Path
    config: PreTrainedConfig
    tokenizer: Any
    generation: dict[str, Any]  # its generation_config.json, {} without one
    tensors: Tensors  # without lm_head.weight when tied; to read a number that is not finite raises `UserError`
    adapter: Path | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def folders(self) -> list[Path]:
        """The directories it is read from."""
        return list(dict.fromkeys((self.folder, self.tokenizer_folder, self.adapter or self.folder)))

    @property
    def rows(self) -> int:
        """Rows of its embedding table."""
        return self.tensors[EMBEDDING].shape[0]

    @property
    def tied(self) -> bool:
        """Is one table both its embedding and its lm_head?"""
        return HEAD not in self.tensors

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of its weights."""
        return self.tensors[EMBEDDING].dtype


def open_specialists(given: Sequence[str | Path], names: Sequence[str] | None = None) -> list[Specialist]:
    """Open all specialists. Raises `UserError` for the first that cannot be used, or for their number or names."""
    names = names_for(given, names)
    return [open_specialist(str(one), name) for one, name in zip(given, names, strict=True)]


def names_for(given: Sequence[str | Path], names: Sequence[str] | None = None) -> list[str]:
    """A name for each specialist: those of ``names``, else its default.

    Raises `UserError` for too few or too many specialists, and for names that are not valid or not one each.
    """
    if not 2 <= len(given) <= 8:
        raise UserError(f"{plural(len(given), 'specialist')} given; from two to eight can be fused")
    names = default_names(given) if names is None else list(names)
    _check_names(names, len(given))
    return names


def default_names(given: Iterable[str | Path]) -> list[str]:
    """The last part of each path or hub id, of that without its revision."""
    return [Path(one if os.access(one, os.F_OK) else hub.split_revision(str(one))[0]).resolve().name for one in given]


def _check_names(names: Sequence[str], count: int) -> None:
    if len(names) != count:
        raise UserError(f"{plural(len(names), 'name')} for {plural(count, 'specialist')}: {', '.join(names)}; give one name each")
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name):  # it becomes that of a directory
            allowed = "up to 100 letters, digits, '-', '_' and '.' only"
            raise UserError(f"name {name!r} is not valid: {allowed}; give others with --names")
    if len({name.casefold() for name in names}) < count:
        raise UserError(f"names {', '.join(names)} are not all different; give others with --names")


def open_specialist(given: str, name: str) -> Specialist:
    """Open one specialist. Raises `UserError`: see the module docstring."""
    folder = tokenizer_folder = locate(given)
    adapter = folder if is_adapter(folder) and not _has_weights(folder) else None
    settings = read_adapter_config(adapter) if adapter else {}
    if adapter:
        folder = _locate_base(settings, adapter)
        tokenizer_folder = adapter if any((adapter / file).is_file() for file in TOKENIZER_SIGNS) else folder
    config = _read_config(folder)
    tensors, notes = _untangle_tie(open_checkpoint(folder), config)
    # With an lm_head of its own it is not tied, whatever it says; without one, but said to be untied, it lacks a tensor.
    config.tie_word_embeddings = config.tie_word_embeddings and HEAD not in tensors
    if adapter:
        tensors = merge_adapter(adapter, settings, tensors, tied=config.tie_word_embeddings)
    config.vocab_size = tensors[EMBEDDING].shape[0] if adapter and EMBEDDING in tensors else config.vocab_size
    require_tensors(folder, config, tensors)
    generation = folder / "generation_config.json"
    return Specialist(
        name=name,
        given=given,
        folder=folder,
        tokenizer_folder=tokenizer_folder,
        config=config,
        tokenizer=read_tokenizer(tokenizer_folder),
        generation=read_json_object(generation) if generation.is_file() else {},
        tensors={key: finite(tensor, _not_finite(given, name, key)) for key, tensor in tensors.items()},
        adapter=adapter,
        notes=notes,
    )


def _not_finite(given: str, name: str, tensor: str) -> str:
    what = f"specialist '{name}': tensor {tensor} holds numbers that are not finite (nan or inf)"
    return f"{what}; fetch {given} again, or take an earlier checkpoint of it"


def places_read(specialists: Iterable[Specialist]) -> list[Path]:
    """The directories that specialists are read from, and the files in them, which may be links to elsewhere."""
    folders = [folder for one in specialists for folder in one.folders]
    return folders + [file for folder in folders for file in folder.iterdir()]


def _has_weights(folder: Path) -> bool:
    return (folder / SINGLE_FILE).is_file() or (folder / INDEX_FILE).is_file()


def locate(given: str) -> Path:
    """The directory that ``given`` names: a local one, or a hub id (``owner/name`` or ``owner/name@revision``), fetched."""
    if not given.strip():
        raise UserError("an empty name is given; give a directory or a Hugging Face hub id")
    folder = user_path(given)
    if os.access(folder, os.F_OK):  # pathlib would raise at what is too long for a path
        if not folder.is_dir():
            raise UserError(f"{given}: is a file; a specialist is a directory or a Hugging Face hub id")
        return folder
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?", given):
        raise UserError(f"{given}: no such directory")
    try:
        return _fetch(given)
    except UserError:
        raise
    except Exception as error:  # many kinds: no such model, gated, no network, ..
        raise UserError(
            f"{given}: no such directory, and not to be had from the Hugging Face hub ({hub.reason(error)})"
        ) from None


def _fetch(given: str) -> Path:
    """The snapshot of a repository of the hub, without what is not needed; the hub's client goes on where it was interrupted."""
    from huggingface_hub import HfApi, snapshot_download, utils

    repository, revision = hub.split_revision(given)
    with hub.bars_on_terminals_only(utils):
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=HUB_FILES, ignore_patterns=HUB_IGNORED))
        config = folder / "config.json"
        if config.is_file() and read_json_object(config).get("model_type") == UltraFuserConfig.model_type:  # for `extract`
            snapshot_download(repository, revision=folder.name, allow_patterns=["specialists/*"])
    if not any(folder.glob("*.safetensors")):
        refuse_pickled(given, HfApi().list_repo_files(repository, revision=folder.name))
    return folder


def _locate_base(settings: Mapping[str, Any], adapter: Path) -> Path:
    """The adapter's base; a relative path may be meant from the adapter's own directory, a hub id has a revision beside it."""
    base, revision = str(settings["base_model_name_or_path"]), settings.get("revision")
    beside = adapter / base
    try:
        return beside if beside.is_dir() else locate(f"{base}@{revision}" if revision and not Path(base).exists() else base)
    except UserError as error:
        raise UserError(f"{adapter}: its base model cannot be opened: {error}") from None


def _read_config(folder: Path) -> PreTrainedConfig:
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder}: no config.json; a specialist is a Hugging Face model directory")
    raw = read_json_object(folder / "config.json")
    model_type = raw.get("model_type")
    if model_type not in SUPPORTED_ARCHITECTURES:
        what = f"architecture {model_type!r} is" if model_type is not None else "a config.json without model_type is"
        raise UserError(f"{folder}: {what} not supported; supported are {', '.join(SUPPORTED_ARCHITECTURES)}")
    if raw.get("quantization_config"):
        raise UserError(f"{folder}: is quantised; give the unquantised checkpoint (the fused model can be quantised when loaded)")
    require_possible_numbers(folder / "config.json", raw)
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder)
    except Exception as error:  # transformers raises many kinds for values it does not accept
        raise UserError(f"{folder / 'config.json'}: not accepted by transformers ({first_line(error)})") from None
    return config


def read_tokenizer(folder: Path) -> Any:
    """The tokenizer in ``folder``. Raises `UserError` if there is none or it does not load."""
    if not any((folder / file).is_file() for file in TOKENIZER_SIGNS):
        raise UserError(f"{folder}: no tokenizer ({', '.join(TOKENIZER_SIGNS[:2])}); copy the one it was trained with there")
    try:
        return AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # the tokenizers library raises plain Exception for a broken file
        why = " ".join(str(error).split()) or type(error).__name__
        told = f"its tokenizer does not load ({textwrap.shorten(why, 160, placeholder=' ..')})"
        raise UserError(f"{folder}: {told}; copy the one it was trained with there") from None


def _untangle_tie(tensors: Tensors, config: PreTrainedConfig) -> tuple[Tensors, tuple[str, ...]]:
    """Drop what is not a weight, and decide as transformers does whether a tied model's two tables are really one."""
    kept: Tensors = {name: tensor for name, tensor in tensors.items() if not name.endswith("rotary_emb.inv_freq")}
    if not config.tie_word_embeddings or HEAD not in kept:
        return kept, ()
    head = kept.pop(HEAD)
    if EMBEDDING not in kept:
        return kept | {EMBEDDING: head}, ()
    if same_bytes(kept[EMBEDDING], head):
        return kept, ()
    return kept | {HEAD: head}, ("its config ties the two tables, but they differ: they stay two, as transformers does",)


def open_fused(folder: Path) -> tuple[UltraFuserConfig, Tensors]:
    """Configuration and tensors of the fused model in ``folder``.

    Raises `UserError` where there is none, and where names, shapes or dtypes are not those that the configuration promises.
    """
    if not is_directory(folder):
        raise UserError(f"{folder}: no such directory; give a fused model, as 'ultrafuser fuse' writes it")
    raw = read_json_object(folder / "config.json")
    if raw.get("model_type") != UltraFuserConfig.model_type:
        raise UserError(f"{folder}: not a fused model but one of type {raw.get('model_type')}; make one with 'ultrafuser fuse'")
    try:
        config = UltraFuserConfig.from_dict(raw)
    except Exception as error:  # transformers raises many kinds for values it does not accept
        raise UserError(f"{folder / 'config.json'}: not accepted ({first_line(error)}); fetch it again, or mend it") from None
    tensors = open_checkpoint(folder)
    require_tensors(folder, config, tensors)
    return config, tensors


def require_tensors(folder: Path, config: PreTrainedConfig, tensors: Tensors) -> None:
    """Raise `UserError` unless names, shapes and dtypes are those that the configuration promises."""
    try:
        expected = expected_shapes(config)
    except Exception as error:  # whatever a model's own code raises at values that fit no model
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"{folder / 'config.json'}: no model can be made with its values ({reason})") from None
    missing, extra = expected.keys() - tensors.keys(), tensors.keys() - expected.keys()
    for what, names in (("missing", missing), ("not of this architecture", extra)):
        if names:
            is_or_are = "is" if len(names) == 1 else "are"
            told = f"{plural(len(names), 'tensor')} {is_or_are} {what}: {_few(sorted(names))}"
            raise UserError(f"{folder}: {told}; fetch it again, or correct its config.json")
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS:
            raise UserError(
                f"{folder}: tensor {name} is {tensor.dtype}: quantised weights cannot be fused; give the unquantised ones"
            )
        if tensor.shape != expected[name]:
            raise UserError(
                f"{folder}: tensor {name} has shape {list(tensor.shape)}, its config.json promises {list(expected[name])}"
            )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", .." if len(names) > 3 else "")


def expected_shapes(config: PreTrainedConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every weight a model of this configuration has; ``lm_head.weight`` only if it is not tied."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(copy.deepcopy(config))
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters(remove_duplicate=False)}
    if config.tie_word_embeddings:
        shapes.pop(HEAD, None)
    return shapes
