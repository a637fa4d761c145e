"""Average merging, the paper's baseline (section 5): theta = (theta_1 + .. + theta_N) / N, streamed.

The result is an ordinary model of the first specialist's architecture, tokenizer and template. It keeps the first one's
vocabulary: a row of the two tables is the mean over the specialists that have that row.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ultrafuser.errors import UserError
from ultrafuser.io import new_directory, read_json_object, require_new_directory, require_space, write_json
from ultrafuser.model.companions import companion_bytes, copy_tokenizer, in_dtype
from ultrafuser.model.fuse import progress_bar
from ultrafuser.model.safetensors_stream import parse_size, write_checkpoint
from ultrafuser.model.sources import EMBEDDING, HEAD, Specialist, open_specialists, places_read
from ultrafuser.model.tensors import AnyTensor, ComputedTensor, Tensors, common_dtype, tensor_bytes
from ultrafuser.refused import called_plainly
from ultrafuser.tokens.vocabulary import agree


@called_plainly
def average_merge(
    specialists: Sequence[str | Path], out: str | Path, *, names: Sequence[str] | None = None, overwrite: bool = False
) -> Path:
    """Write the mean of the specialists' weights to ``out`` as a plain Hugging Face model; return it.

    The mean of a tensor is taken in float32 and rounded once, to the dtype that holds all of its versions. Raises `UserError`
    if architectures, shapes or vocabularies differ, or numbers are not finite.
    """
    out = require_new_directory(out, overwrite=overwrite)  # before anything is fetched
    opened = open_specialists(specialists, names)
    require_new_directory(out, overwrite=overwrite, inputs=places_read(opened))
    agree({one.name: one.tokenizer for one in opened}, {one.name: one.rows for one in opened})
    tensors = _mean_tensors(opened)
    total = sum(map(tensor_bytes, tensors.values()))
    require_space(out, total + companion_bytes(opened))
    first = opened[0]
    with new_directory(out, overwrite=overwrite) as folder, progress_bar("merging", total) as advance:
        copy_tokenizer(first.tokenizer_folder, folder)
        own = in_dtype(read_json_object(first.folder / "config.json"), tensors[EMBEDDING].dtype)
        write_json(folder / "config.json", own | {"vocab_size": first.rows, "tie_word_embeddings": HEAD not in tensors})
        if first.generation:
            write_json(folder / "generation_config.json", first.generation)
        write_checkpoint(folder, tensors, max_shard_size=parse_size("5GB"), advance=advance)
    return out


def _mean_tensors(specialists: Sequence[Specialist]) -> Tensors:
    """Name -> mean tensor. If only some tie their tables, the others' lm_head is averaged with the tied ones' embedding."""
    first, *others = specialists
    for one in others:
        if one.config.model_type != first.config.model_type or _shapes(one) != _shapes(first):
            raise UserError(
                f"{one.name} and {first.name} are unlike in architecture or shape; only models of one shape can be averaged"
            )
    names = [*first.tensors] + [HEAD] * (first.tied and not all(one.tied for one in others))
    return {name: mean([one.tensors.get(name, one.tensors[EMBEDDING]) for one in specialists]) for name in names}


def _shapes(one: Specialist) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the weights, the number of rows of the tables left out."""
    return {name: tensor.shape[name == EMBEDDING :] for name, tensor in one.tensors.items() if name != HEAD}


def mean(tensors: Sequence[AnyTensor]) -> ComputedTensor:
    """The mean of tensors (R_j, ..) that may have unlike numbers of rows: R_0 rows, each over the tensors that have it."""
    dtype = common_dtype(tensor.dtype for tensor in tensors)

    def read(start: int, stop: int) -> torch.Tensor:
        total = torch.zeros(stop - start, *tensors[0].shape[1:])
        count = torch.zeros(stop - start, *[1] * (total.ndim - 1))
        for tensor in tensors:
            last = min(stop, tensor.shape[0])
            if start < last:
                total[: last - start] += tensor.rows(start, last).float()
                count[: last - start] += 1
        return (total / count).to(dtype)

    return ComputedTensor(dtype, tensors[0].shape, read)
