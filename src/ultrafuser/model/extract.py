"""`ultrafuser extract`: one specialist of a fused model as an ordinary checkpoint again.

The inverse of layout.py. Before joint training every tensor is bit-identical to what was fused, and so is the file, if it was
one and written by the safetensors library, whose order of tensors is followed. After it, it is the specialist as trained: the
rows of its own end-of-turn token are then taken from the fused end token, which is what was trained in its place.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ultrafuser.errors import UserError, did_you_mean
from ultrafuser.io import new_directory, read_json, require_new, require_space, write_json
from ultrafuser.model.companions import FUSION_FILE
from ultrafuser.model.configuration_ultrafuser import UltraFuserConfig
from ultrafuser.model.fuse import DROPPED_FILE, progress_bar
from ultrafuser.model.layout import fused_name, starts
from ultrafuser.model.safetensors_stream import parse_size, write_checkpoint
from ultrafuser.model.sources import EMBEDDING, HEAD, expected_shapes
from ultrafuser.model.tensors import (
    AnyTensor,
    ComputedTensor,
    Tensors,
    cast,
    open_checkpoint,
    read_header,
    same_bytes,
    tensor_bytes,
)

# In which the safetensors library writes tensors; those of one dtype by name.
ORDER = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class _Place:
    """Where one specialist lies in the fused model."""

    j: int
    config: Any
    columns: tuple[int, int]
    first_layer: int
    shared: int  # ids below are its own
    end_slot: int | None
    end_token_id: int


def extract(fused_dir: str | Path, specialist: str, out: str | Path, *, overwrite: bool = False) -> Path:
    """Write the specialist called ``specialist`` of the fused model in ``fused_dir`` to ``out``; return it.

    Its tensors have the names and dtypes they had before, its tokenizer is its own, its chat template the one it was fused
    with. If its two tables were one but have been trained apart, both are written. Raises `UserError`.
    """
    fused_dir = Path(fused_dir)
    out = require_new(out, overwrite=overwrite, inputs=[fused_dir, *fused_dir.rglob("*")])
    config = _fused_config(fused_dir)
    own = _own_folder(fused_dir, config, specialist)
    place, fusion = _place(config, own, specialist)
    tensors = _as_before(_own_tensors(open_checkpoint(fused_dir), own, place), fusion)
    tied = HEAD not in tensors
    total = sum(map(tensor_bytes, tensors.values()))
    require_space(out, total)
    with new_directory(out, overwrite=overwrite) as folder, progress_bar("extracting", total) as advance:
        shutil.copytree(own, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(FUSION_FILE, DROPPED_FILE))
        write_json(folder / "config.json", read_json(own / "config.json") | {"tie_word_embeddings": tied})
        write_checkpoint(folder, tensors, max_shard_size=parse_size("5GB"), advance=advance)
    return out


def _fused_config(folder: Path) -> UltraFuserConfig:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such directory")
    raw = read_json(folder / "config.json")
    if not isinstance(raw, dict) or raw.get("model_type") != UltraFuserConfig.model_type:
        raise UserError(f"{folder}: not a fused model; extract takes a directory that `ultrafuser fuse` or `train` wrote")
    return UltraFuserConfig.from_dict(raw)


def _own_folder(folder: Path, config: UltraFuserConfig, specialist: str) -> Path:
    names = config.specialist_names or []
    if specialist not in names:
        raise UserError(f"{folder}: no specialist '{specialist}'; it has {', '.join(names)}{did_you_mean(specialist, names)}")
    own = folder / "specialists" / specialist
    if not (own / FUSION_FILE).is_file():
        raise UserError(
            f"{own}: is not there or incomplete; copy the folder 'specialists' from the model that `ultrafuser fuse` wrote"
        )
    return own


def _place(config: UltraFuserConfig, own: Path, specialist: str) -> tuple[_Place, dict[str, Any]]:
    fusion: dict[str, Any] = read_json(own / FUSION_FILE)
    j = (config.specialist_names or []).index(specialist)
    configs = config.specialist_configs()
    columns = starts(one.hidden_size for one in configs)
    slot_start = int(config.slot_start or 0)
    end_is_slot = int(config.predictable_vocab_size or 0) > slot_start
    place = _Place(
        j=j,
        config=configs[j],
        columns=(columns[j], columns[j + 1]),
        first_layer=starts(one.num_hidden_layers for one in configs)[j],
        shared=min(slot_start, configs[j].vocab_size),
        end_slot=slot_start if end_is_slot else None,
        end_token_id=int(fusion["end_token_id"]),
    )
    return place, fusion


def _own_tensors(fused: Tensors, own: Path, place: _Place) -> Tensors:
    """Name -> tensor of the specialist, ``lm_head.weight`` left out if it is its embedding."""
    dropped: Tensors = dict(read_header(own / DROPPED_FILE)) if (own / DROPPED_FILE).is_file() else {}
    if place.config.vocab_size > place.shared and not dropped:
        raise UserError(f"{own / DROPPED_FILE}: is missing; copy it from the model that `ultrafuser fuse` wrote")
    tied = bool(place.config.tie_word_embeddings)
    tables = {EMBEDDING: _own_table(fused, EMBEDDING, dropped.get(EMBEDDING), place)}
    if HEAD in fused:
        tables[HEAD] = _own_table(fused, HEAD, dropped.get(EMBEDDING if tied else HEAD), place)
        if tied and same_bytes(tables[EMBEDDING], tables[HEAD]):
            del tables[HEAD]
    names = expected_shapes(place.config).keys() - {EMBEDDING, HEAD}
    return {name: fused[fused_name(name, place.j, place.first_layer)] for name in names} | tables


def _own_table(fused: Tensors, name: str, dropped: AnyTensor | None, place: _Place) -> ComputedTensor:
    """The specialist's own table (V_j, H_j): its columns of the shared rows, then the rows that had been dropped."""
    table, (left, right) = fused[name], place.columns
    shape = (place.config.vocab_size, right - left)

    def read(start: int, stop: int) -> torch.Tensor:
        block = torch.empty(stop - start, shape[1], dtype=table.dtype)  # (rows, H_j)
        last = max(start, min(stop, place.shared))
        block[: last - start] = table.rows(start, last)[:, left:right]
        if dropped is not None and last < stop:
            block[last - start :] = dropped.rows(last - place.shared, stop - place.shared).to(table.dtype)
        if place.end_slot is not None and start <= place.end_token_id < stop:
            block[place.end_token_id - start] = table.rows(place.end_slot, place.end_slot + 1)[0, left:right]
        return block

    return ComputedTensor(table.dtype, shape, read)


def _as_before(tensors: Tensors, fusion: Mapping[str, Any]) -> Tensors:
    """``tensors`` in the dtypes that they were fused from, and in the order of the file that they were in."""
    others = fusion.get("dtypes", {})  # those of another dtype than the embedding
    typed = {name: cast(tensor, getattr(torch, others.get(name, fusion["dtype"]))) for name, tensor in tensors.items()}
    return dict(sorted(typed.items(), key=lambda item: (ORDER.index(item[1].dtype), item[0])))
