"""What is good to know of a fusion but stops nothing: told by `check` and `fuse`, and kept in the model card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from ultrafuser.errors import plural
from ultrafuser.model.lineup import LineUp
from ultrafuser.model.sources import Specialist
from ultrafuser.model.tensors import dtype_name, rounds


def fusion_notes(specialists: Sequence[Specialist], lineup: LineUp, dtype: torch.dtype) -> list[str]:
    """All notes on fusing ``specialists`` in ``dtype``."""
    return [*specialist_notes(specialists, dtype), *lineup.agreement.notes, *lineup.template_notes]


def specialist_notes(specialists: Sequence[Specialist], dtype: torch.dtype) -> Iterator[str]:
    """What is unusual in a specialist, and in what they differ but for vocabularies and templates."""
    yield from (f"{one.name}: {note}" for one in specialists for note in one.notes)
    if len({shape(one) for one in specialists}) > 1:
        yield "depths, widths or heads differ: the gate gets a projection per width; static and paged caches do not apply"
    held = {one.name: {dtype_name(tensor.dtype) for tensor in one.tensors.values()} for one in specialists}
    dtypes = {name: " and ".join(sorted(some)) for name, some in held.items()}
    if set(dtypes.values()) != {dtype_name(dtype)}:
        yield f"dtypes: {pairs(dtypes)}; fused in {dtype_name(dtype)}"
    rounded = [one.name for one in specialists if any(rounds(tensor.dtype, dtype) for tensor in one.tensors.values())]
    if rounded:
        yield f"{', '.join(rounded)}: weights are rounded to {dtype_name(dtype)}, and stay so when they are extracted"
    lengths = {one.name: one.config.max_position_embeddings for one in specialists}
    if len(set(lengths.values())) > 1:
        yield f"contexts differ ({pairs(lengths)} tokens): the shortest counts"


def shape(one: Specialist) -> str:
    """The depth, width and heads of a specialist."""
    c = one.config
    return (
        f"{plural(c.num_hidden_layers, 'layer')} of width {c.hidden_size}, heads {c.num_attention_heads}/{c.num_key_value_heads}"
    )


def pairs(values: Mapping[str, Any]) -> str:
    """Names with their values."""
    return ", ".join(f"{name} {value}" for name, value in values.items())
