"""Named tensors that live in files: where they are, and how to read a run of their rows.

Nothing here ever holds a whole checkpoint. A `StoredTensor` is a byte range of a safetensors file, a `ComputedTensor` is made
of others: both are read block of rows by block of rows.

Notation: R rows (the first dimension) of a tensor of any shape (R, ..).
"""

from __future__ import annotations

import json
import math
import mmap
import os
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, TypeAlias

import torch

from ultrafuser.errors import UserError
from ultrafuser.io import read_json_object

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
FLOATS = (torch.bfloat16, torch.float16, torch.float32, torch.float64)
COMPARED_BYTES = 8 << 20
INDEX_FILE, SINGLE_FILE = "model.safetensors.index.json", "model.safetensors"


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a safetensors file, as a byte range of it."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    file: Path
    offset: int

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """Rows ``start:stop``, shape (stop - start, ..). Raises `UserError` if the file ends before them.

        They are mapped, not read into memory of their own: looked through and written, they pass through no copy.
        """
        first, count = self.offset + start * row_bytes(self), (stop - start) * row_bytes(self)
        if not count:
            return torch.empty(stop - start, *self.shape[1:], dtype=self.dtype)
        before = first % mmap.ALLOCATIONGRANULARITY
        with open(self.file, "rb") as file:
            try:
                pages = mmap.mmap(file.fileno(), before + count, access=mmap.ACCESS_COPY, offset=first - before)
            except ValueError:
                raise UserError(f"{self.file}: ended while being read; was it changed? Fetch it again") from None
        flat = torch.frombuffer(pages, dtype=torch.uint8, offset=before, count=count)
        return flat.view(self.dtype).view(stop - start, *self.shape[1:])


@dataclass(frozen=True)
class ComputedTensor:
    """A tensor whose rows ``start:stop`` are ``read(start, stop)``, of this dtype and shape."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    read: Callable[[int, int], torch.Tensor]

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """Compute rows ``start:stop``, shape (stop - start, ..)."""
        return self.read(start, stop)


AnyTensor: TypeAlias = StoredTensor | ComputedTensor
Tensors: TypeAlias = dict[str, AnyTensor]


def tensor_bytes(tensor: AnyTensor) -> int:
    """Size of the whole tensor in bytes."""
    return math.prod(tensor.shape) * tensor.dtype.itemsize


def row_bytes(tensor: AnyTensor) -> int:
    """Size of one row in bytes."""
    return math.prod(tensor.shape[1:]) * tensor.dtype.itemsize


def dtype_name(dtype: torch.dtype) -> str:
    """``"float32"`` for ``torch.float32``, as configurations write it."""
    return str(dtype).removeprefix("torch.")


def common_dtype(dtypes: Iterable[torch.dtype]) -> torch.dtype:
    """The smallest dtype that holds all the given ones without loss."""
    return reduce(torch.promote_types, dtypes)


def rounds(source: torch.dtype, target: torch.dtype) -> bool:
    """Are numbers of ``source`` rounded in ``target``?"""
    return common_dtype((source, target)) != target


def cast(tensor: AnyTensor, dtype: torch.dtype) -> AnyTensor:
    """The tensor in another dtype; the tensor itself if it has that dtype already."""
    if tensor.dtype == dtype:
        return tensor
    return ComputedTensor(dtype, tensor.shape, lambda start, stop: tensor.rows(start, stop).to(dtype))


def is_finite(tensor: torch.Tensor) -> bool:
    """Is no number of the tensor nan or inf?"""
    # Least and greatest are nan if one number is; about 20 times as fast as asking `isfinite` of every number.
    return not tensor.numel() or bool(torch.stack(tensor.aminmax()).isfinite().all())


def finite(tensor: AnyTensor, otherwise: str) -> ComputedTensor:
    """The tensor, of which rows that hold nan or inf are a `UserError` that says ``otherwise`` when they are read."""

    def read(start: int, stop: int) -> torch.Tensor:
        rows = tensor.rows(start, stop)
        if not is_finite(rows):
            raise UserError(otherwise)
        return rows

    return ComputedTensor(tensor.dtype, tensor.shape, read)


def from_memory(tensor: torch.Tensor) -> ComputedTensor:
    """A tensor that is in memory already."""
    return ComputedTensor(tensor.dtype, tuple(tensor.shape), lambda start, stop: tensor[start:stop])


def same_bytes(one: AnyTensor, other: AnyTensor) -> bool:
    """Are two tensors equal in dtype, shape and every bit? Read in blocks of rows."""
    if (one.dtype, one.shape) != (other.dtype, other.shape):
        return False
    step = max(1, COMPARED_BYTES // max(1, row_bytes(one)))
    blocks = ((start, min(start + step, one.shape[0])) for start in range(0, one.shape[0], step))
    return all(torch.equal(_bits(one, *block), _bits(other, *block)) for block in blocks)


def _bits(tensor: AnyTensor, start: int, stop: int) -> torch.Tensor:
    return tensor.rows(start, stop).contiguous().view(torch.uint8)


def read_header(file: Path) -> dict[str, StoredTensor]:
    """Name -> tensor of one safetensors file. Raises `UserError` if the file is missing, truncated or not safetensors."""
    header, start, size = _read_header_json(file)
    tensors = {name: _stored(file, name, entry, start) for name, entry in header.items() if name != "__metadata__"}
    end = max((tensor.offset + tensor_bytes(tensor) for tensor in tensors.values()), default=start)
    if size != end:
        what = "truncated" if size < end else "damaged"
        raise UserError(f"{file}: {what}: it should have {end:,} bytes but has {size:,}; fetch it again")
    return tensors


def _read_header_json(file: Path) -> tuple[dict[str, Any], int, int]:
    """The header, the offset at which data begins, and the file's size."""
    try:
        with open(file, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            prefix = stream.read(8)
            length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
            if size < 8 or length > size - 8:
                raise UserError(f"{file}: truncated: not even its header is complete; fetch it again")
            return dict(json.loads(stream.read(length))), 8 + length, size
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"{file}: no such file; a shard named in {INDEX_FILE} is missing") from None
    except (ValueError, TypeError):
        raise UserError(f"{file}: not a safetensors file (its header is not valid JSON)") from None


def _stored(file: Path, name: str, entry: Any, start: int) -> StoredTensor:
    try:
        begin, end = entry["data_offsets"]
        tensor = StoredTensor(DTYPES[entry["dtype"]], tuple(entry["shape"]), file, start + begin)
        if any(type(number) is not int or number < 0 for number in (begin, end, *tensor.shape)):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{file}: tensor {name} has a dtype or header entry that is not known") from None
    if end - begin != tensor_bytes(tensor):
        raise UserError(f"{file}: tensor {name}: {end - begin} bytes do not hold shape {list(tensor.shape)}; fetch it again")
    return tensor


def open_checkpoint(folder: Path) -> Tensors:
    """Name -> tensor of the checkpoint in ``folder``, one file or sharded; no data is read.

    Raises `UserError`: no weights, weights pickled instead of safetensors, a shard missing or damaged.
    """
    if (folder / SINGLE_FILE).is_file():
        return dict(read_header(folder / SINGLE_FILE))
    places = _weight_map(folder)
    shards = {shard: read_header(folder / shard) for shard in sorted(set(places.values()))}
    for name, shard in places.items():
        if name not in shards[shard]:
            raise UserError(f"{folder / shard}: tensor {name} is missing although {INDEX_FILE} places it here")
    return {name: shards[shard][name] for name, shard in places.items()}


def weight_files(folder: Path) -> list[Path]:
    """The files that `open_checkpoint` reads, shards in order. Raises `UserError` if there are none."""
    if (folder / SINGLE_FILE).is_file():
        return [folder / SINGLE_FILE]
    return [folder / shard for shard in sorted(set(_weight_map(folder).values()))]


def _weight_map(folder: Path) -> dict[str, str]:
    """Name of a tensor -> shard that holds it."""
    if not (folder / INDEX_FILE).is_file():
        refuse_pickled(folder, (path.name for path in folder.iterdir()))
        raise UserError(f"{folder}: no weights: neither {SINGLE_FILE} nor {INDEX_FILE} is there")
    places = read_json_object(folder / INDEX_FILE).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) and Path(file).name == file for file in places.values()):
        raise UserError(f"{folder / INDEX_FILE}: has no weight_map of files beside it; fetch it again")
    return places


def refuse_pickled(place: str | Path, files: Iterable[str]) -> None:
    """Raise `UserError` if ``files``, the names of those of a ``place`` without safetensors, have pickled weights among them."""
    pickled = sorted(file for file in files if file.endswith((".bin", ".pt", ".pth", ".pkl")))
    if pickled:
        raise UserError(
            f"{place}: its weights are pickled ({pickled[0]}), which can run code when loaded; convert them to safetensors "
            "(load with transformers, then save_pretrained)"
        )
