"""`ultrafuser extract`: one specialist of a fused model as an ordinary checkpoint again.

The inverse of layout.py. Before joint training every tensor is bit-identical to what was fused, and so is the file, if it was
one and written by the safetensors library, whose order of tensors is followed. What a narrower dtype of the fused model has
rounded stays rounded, in that dtype, and is told. After joint training it is the specialist as trained: the rows of its own
end-of-turn token are then taken from the fused end token, which is what was trained in its place.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ultrafuser.errors import UserError, did_you_mean
from ultrafuser.io import new_directory, read_json_object, require_new_directory, require_space, write_json
from ultrafuser.model.companions import FUSION_FILE, in_dtype
from ultrafuser.model.configuration_ultrafuser import UltraFuserConfig
from ultrafuser.model.fuse import DROPPED_FILE, progress_bar
from ultrafuser.model.layout import fused_name, starts
from ultrafuser.model.safetensors_stream import parse_size, write_checkpoint
from ultrafuser.model.sources import EMBEDDING, HEAD, expected_shapes, open_fused
from ultrafuser.model.tensors import (
    AnyTensor,
    ComputedTensor,
    Tensors,
    cast,
    dtype_name,
    read_header,
    rounds,
    same_bytes,
    tensor_bytes,
)
from ultrafuser.refused import called_plainly

logger = logging.getLogger(__name__)
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


@called_plainly
def extract(fused_dir: str | Path, specialist: str, out: str | Path, *, overwrite: bool = False) -> Path:
    """Write the specialist called ``specialist`` of the fused model in ``fused_dir`` to ``out``; return it.

    Its tensors have the names and dtypes they had before, its tokenizer is its own, its chat template the one it was fused
    with. If its two tables were one but have been trained apart, both are written. Tensors that fusing has rounded to a
    narrower dtype are written in that one, and a warning says so. Raises `UserError`.
    """
    fused_dir = Path(fused_dir)
    config, fused = open_fused(fused_dir)
    out = require_new_directory(out, overwrite=overwrite, inputs=_read(fused_dir))
    own = _own_folder(fused_dir, config, specialist)
    fusion = _fusion(own / FUSION_FILE)
    tensors = _own_tensors(fused, own, _place(config, specialist, fusion["end_token_id"]))
    tensors, rounded = _as_before(tensors, fusion)
    settings = read_json_object(own / "config.json") | {"tie_word_embeddings": HEAD not in tensors}
    settings = in_dtype(settings, tensors[EMBEDDING].dtype) if rounded else settings
    total = sum(map(tensor_bytes, tensors.values()))
    require_space(out, total)
    with new_directory(out, overwrite=overwrite) as folder, progress_bar("extracting", total) as advance:
        shutil.copytree(own, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(FUSION_FILE, DROPPED_FILE))
        write_json(folder / "config.json", settings)
        write_checkpoint(folder, tensors, max_shard_size=parse_size("5GB"), advance=advance)
    if rounded:
        logger.warning("note: %s: fusing has rounded its weights from %s; they stay so", specialist, " and ".join(rounded))
    return out


def _read(folder: Path) -> list[Path]:
    """The fused model in ``folder`` and its parts, which may be links to elsewhere; nothing deeper is looked at."""
    return [folder, *(path for pattern in ("*", "specialists/*", "specialists/*/*") for path in folder.glob(pattern))]


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


def _fusion(file: Path) -> dict[str, Any]:
    """What `companions.write_own` noted of a specialist when it was fused."""
    fusion = read_json_object(file)
    dtypes, known = fusion.get("dtypes", {}), [dtype_name(dtype) for dtype in ORDER]
    whole = isinstance(dtypes, dict) and all(one in known for one in (fusion.get("dtype"), *dtypes.values()))
    if not whole or type(fusion.get("end_token_id")) is not int:
        raise UserError(f"{file}: is damaged; copy it from the model that `ultrafuser fuse` wrote")
    return fusion


def _place(config: UltraFuserConfig, specialist: str, end_token_id: int) -> _Place:
    j = (config.specialist_names or []).index(specialist)
    configs = config.specialist_configs()
    if not 0 <= end_token_id < configs[j].vocab_size:
        raise UserError(f"specialist '{specialist}': {FUSION_FILE} names an end of turn, {end_token_id}, that is no token of its")
    columns = starts(one.hidden_size for one in configs)
    slot_start = int(config.slot_start or 0)
    end_is_slot = int(config.predictable_vocab_size or 0) > slot_start
    return _Place(
        j=j,
        config=configs[j],
        columns=(columns[j], columns[j + 1]),
        first_layer=starts(one.num_hidden_layers for one in configs)[j],
        shared=min(slot_start, configs[j].vocab_size),
        end_slot=slot_start if end_is_slot else None,
        end_token_id=end_token_id,
    )


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


def _as_before(tensors: Tensors, fusion: Mapping[str, Any]) -> tuple[Tensors, list[str]]:
    """``tensors`` in the dtypes that they were fused from and in the order of the file that they were in; what was rounded.

    The latter as ``float32 to bfloat16``; such tensors stay as they are.
    """
    others = fusion.get("dtypes", {})  # those of another dtype than the embedding
    typed, rounded = {}, set()
    for name, tensor in tensors.items():
        before = getattr(torch, others.get(name, fusion["dtype"]))
        if rounds(before, tensor.dtype):
            rounded.add(f"{dtype_name(before)} to {dtype_name(tensor.dtype)}")
        typed[name] = tensor if rounds(before, tensor.dtype) else cast(tensor, before)
    return dict(sorted(typed.items(), key=lambda item: (ORDER.index(item[1].dtype), item[0]))), sorted(rounded)
