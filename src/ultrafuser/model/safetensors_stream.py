"""Write safetensors files as a stream: the header from the shapes, then the bytes, never a whole checkpoint in memory.

Every tensor is read or computed in blocks of rows and written at once. So the peak memory is a few blocks, whatever the
model's size, and the speed is that of copying files.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

import torch

from ultrafuser.io import write_json
from ultrafuser.model.tensors import DTYPES, INDEX_FILE, SINGLE_FILE, AnyTensor, Tensors, row_bytes, tensor_bytes
from ultrafuser.refused import short

BLOCK_BYTES = 4 << 20
NAMES = {dtype: name for name, dtype in DTYPES.items()}
Advance = Callable[[int], None]


def parse_size(text: str | int) -> int:
    """Bytes of ``"5GB"``, ``"500 MB"`` or a plain number. Raises `ValueError` for anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)B?\s*", str(text), re.IGNORECASE)
    size = float(match[1]) * 1000.0 ** " KMGT".index(match[2].upper() or " ") if match else 0
    if not 1 <= size < 2**63:
        raise ValueError(f"{short(text)} is not a size such as 5GB or 500MB")
    return int(size)


def write_checkpoint(
    folder: Path,
    tensors: Tensors,
    *,
    max_shard_size: int,
    apart: Mapping[str, Tensors] | None = None,
    advance: Advance = lambda count: None,
) -> None:
    """Write ``tensors`` as one or more shards with an index, in the order given.

    ``apart`` maps further file names to tensors that get a file of their own. One shard and nothing apart is written as
    ``model.safetensors`` without an index. ``advance`` is told the bytes written, as they are written.
    """
    shards = split(tensors, max_shard_size)
    files = {f"model-{k:05d}-of-{len(shards):05d}.safetensors": shard for k, shard in enumerate(shards, 1)} | dict(apart or {})
    if len(files) == 1:
        files = {SINGLE_FILE: shards[0]}
    else:
        write_json(folder / INDEX_FILE, _index(files))
    for name, shard in files.items():
        write_file(folder / name, shard, advance)


def split(tensors: Tensors, max_shard_size: int) -> list[Tensors]:
    """Cut tensors into shards of at most ``max_shard_size`` bytes, in order; a larger tensor gets a shard of its own."""
    shards: list[Tensors] = [{}]
    filled = 0
    for name, tensor in tensors.items():
        size = tensor_bytes(tensor)
        if shards[-1] and filled + size > max_shard_size:
            shards.append({})
            filled = 0
        shards[-1][name] = tensor
        filled += size
    return shards


def _index(files: Mapping[str, Tensors]) -> dict[str, object]:
    total = sum(tensor_bytes(tensor) for shard in files.values() for tensor in shard.values())
    weight_map = {name: file for file, shard in files.items() for name in shard}
    return {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}


def write_file(path: Path, tensors: Tensors, advance: Advance = lambda count: None) -> None:
    """Write one safetensors file and flush it to the disk, so that renaming its directory afterwards makes it whole."""
    with open(path, "wb", buffering=0) as file:
        file.write(_header(tensors))
        for tensor in tensors.values():
            _append(tensor, file, advance)
        os.fsync(file.fileno())


def _header(tensors: Tensors) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        end = offset + tensor_bytes(tensor)
        entries[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format wants the data to begin at a multiple of 8
    return struct.pack("<Q", len(text)) + text


def _append(tensor: AnyTensor, file: BinaryIO, advance: Advance) -> None:
    """Append a tensor, block of rows by block of rows."""
    step = max(1, BLOCK_BYTES // max(1, row_bytes(tensor)))
    for start in range(0, tensor.shape[0], step):
        block = tensor.rows(start, min(start + step, tensor.shape[0])).contiguous()
        view = memoryview(block.view(-1).view(torch.uint8).numpy())
        while view:
            view = view[file.write(view) :]
        advance(block.nbytes)
