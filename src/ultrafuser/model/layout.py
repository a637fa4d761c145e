"""How N checkpoints lie in one: names, tables and configuration of the fused model (docs/design.md, "One decoder").

    model.layers.i.*      of specialist j  ->  model.layers.(L_0 + .. + L_(j-1) + i).*
    model.norm.weight     of specialist j  ->  model.norms.j.weight
    embedding, lm_head    of specialist j  ->  columns j of one table (V, H)

Notation: N specialists, H_j width of specialist j, H their sum, L_j its depth, V fused vocabulary, S slot tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import torch

from ultrafuser.model.configuration_ultrafuser import UltraFuserConfig
from ultrafuser.model.gate_ultrafuser import UltraFuserGate
from ultrafuser.model.sources import EMBEDDING, HEAD, Specialist
from ultrafuser.model.tensors import AnyTensor, ComputedTensor, Tensors, cast, dtype_name, finite, from_memory
from ultrafuser.tokens.slots import SlotPlan

GATE_PREFIX = "model.gate."


def starts(sizes: Iterable[int]) -> list[int]:
    """Where each of the runs of these sizes begins, and where the last ends."""
    return list(accumulate(sizes, initial=0))


def fused_config(
    specialists: Sequence[Specialist], plan: SlotPlan, *, gate_hidden_size: int, dtype: torch.dtype
) -> UltraFuserConfig:
    """The fused model's configuration, without the special token ids that only its tokenizer knows."""
    return UltraFuserConfig(
        specialists=[_without_path(one.config.to_dict()) for one in specialists],
        specialist_names=[one.name for one in specialists],
        gate_hidden_size=gate_hidden_size,
        vocab_size=plan.slot_start + len(plan.slot_tokens),
        slot_start=plan.slot_start,
        slot_visibility=[[int(source is not None) for source in row] for row in plan.slot_sources],
        predictable_vocab_size=plan.predictable_vocab_size,
        masked_token_ids=plan.masked_token_ids,
        tie_word_embeddings=all(one.tied for one in specialists),
        eos_token_id=plan.eos_token_ids,
        architectures=["UltraFuserForCausalLM"],
        dtype=dtype,
    )


def _without_path(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the place it was loaded from: a checkpoint that is passed on tells no private paths."""
    return {key: value for key, value in config.items() if key != "_name_or_path"}


def fused_tensors(specialists: Sequence[Specialist], plan: SlotPlan, dtype: torch.dtype) -> Tensors:
    """Name -> tensor of the fused model without its gate; every tensor still lies in, or is computed from, the specialists'."""
    end_is_slot = plan.predictable_vocab_size > plan.slot_start  # then it is the first, and the only one ever predicted
    head_rows: list[Sequence[int | None]] = [
        plan.end_sources if end_is_slot and s == 0 else [None] * len(specialists) for s in range(len(plan.slot_tokens))
    ]
    own = [_in_dtype(one, dtype) for one in specialists]
    fused: Tensors = {EMBEDDING: side_by_side([tensors[EMBEDDING] for tensors in own], plan.slot_start, plan.slot_sources)}
    first = starts(one.config.num_hidden_layers for one in specialists)
    for j, tensors in enumerate(own):
        layers = {name: tensor for name, tensor in tensors.items() if name not in (EMBEDDING, HEAD)}
        fused |= {fused_name(name, j, first[j]): tensor for name, tensor in layers.items()}
    if not all(one.tied for one in specialists):
        heads = [tensors.get(HEAD, tensors[EMBEDDING]) for tensors in own]
        fused[HEAD] = side_by_side(heads, plan.slot_start, head_rows)
    return fused


def _in_dtype(one: Specialist, dtype: torch.dtype) -> Tensors:
    """A specialist's tensors in the fused dtype; numbers that it has no room for are a `UserError` when they are read."""
    told = f"holds numbers too large for {dtype_name(dtype)}; give --dtype bfloat16 or float32"
    return {
        name: tensor if tensor.dtype == dtype else finite(cast(tensor, dtype), f"specialist '{one.name}': tensor {name} {told}")
        for name, tensor in one.tensors.items()
    }


def fused_name(name: str, j: int, first_layer: int) -> str:
    """The fused name of a specialist's layer tensor or final norm."""
    if name == "model.norm.weight":
        return f"model.norms.{j}.weight"
    index, _, rest = name.removeprefix("model.layers.").partition(".")
    return f"model.layers.{first_layer + int(index)}.{rest}"


def side_by_side(tables: Sequence[AnyTensor], shared: int, slot_sources: Sequence[Sequence[int | None]]) -> ComputedTensor:
    """The table (V, H): ``shared`` rows of all tables (V_j, H_j) side by side, then one row per slot from each one's own token.

    Rows that a table does not have, and slots without a source in it, are zero there. All are of one dtype.
    """
    dtype = tables[0].dtype
    columns = starts(table.shape[1] for table in tables)

    def read(start: int, stop: int) -> torch.Tensor:
        block = _zeros(stop - start, columns[-1], dtype)  # (rows, H)
        for j, table in enumerate(tables):
            chunk = block[:, columns[j] : columns[j + 1]]  # (rows, H_j)
            last = min(stop, shared, table.shape[0])
            if start < last:
                _paste(table.rows(start, last), chunk[: last - start])
            for slot in range(max(start, shared), stop):
                source = slot_sources[slot - shared][j]
                if source is not None:
                    chunk[slot - start] = table.rows(source, source + 1)[0]
        return block

    return ComputedTensor(dtype, (shared + len(slot_sources), columns[-1]), read)


# Both by numpy, in one thread: torch's threads, started for every block, cost more than they bring.
def _zeros(rows: int, width: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(np.zeros((rows, width * dtype.itemsize), np.uint8)).view(dtype)


def _paste(rows: torch.Tensor, target: torch.Tensor) -> None:
    target.view(torch.uint8).numpy()[:] = rows.view(torch.uint8).numpy()


def dropped_rows(one: Specialist, slot_start: int) -> Tensors:
    """The rows of a specialist's tables that the fused vocabulary has no ids for, kept so that it can be given back whole."""
    if one.rows <= slot_start:
        return {}
    return {name: _tail(one.tensors[name], slot_start) for name in (EMBEDDING, HEAD) if name in one.tensors}


def _tail(table: AnyTensor, start: int) -> ComputedTensor:
    shape = (table.shape[0] - start, *table.shape[1:])
    return ComputedTensor(table.dtype, shape, lambda a, b: table.rows(start + a, start + b))


def gate_bytes(config: UltraFuserConfig) -> int:
    """Bytes of the gate."""
    with torch.device("meta"):
        return sum(parameter.nbytes for parameter in UltraFuserGate(config).parameters())


def gate_tensors(config: UltraFuserConfig, seed: int) -> Tensors:
    """A fresh gate in float32, by torch's own initialisation of linear layers; the same for the same seed everywhere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        gate = UltraFuserGate(config)
    state: Mapping[str, torch.Tensor] = gate.state_dict()
    return {f"{GATE_PREFIX}{name}": from_memory(tensor.detach()) for name, tensor in state.items()}
