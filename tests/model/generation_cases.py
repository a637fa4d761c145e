"""Fused models with prompts of unlike length, and the slow reference of ``generate``: whole passes without cache or state.

The fixtures over them, ``case``, ``alike`` and ``unlike``, stand in conftest.py. That whole passes are right is shown against
N separate models in test_modeling.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from reference import Templates, fuse_by_hand, tiny_llama
from ultrafuser.model.modeling_ultrafuser import UltraFuserForCausalLM

UNLIKE = Templates(user=[[1, 2, 3, 4], [5], [6, 7]], answer=[[8], [9, 10, 11], [12, 13]])
NEVER = 10**6  # an end token that nothing generates
FREE = {"do_sample": False, "eos_token_id": NEVER, "pad_token_id": 0}


@dataclass
class Case:
    """A fused model with two prompts of unlike length, left-padded, and one alone."""

    model: UltraFuserForCausalLM
    rows: list[list[int]]

    def __post_init__(self) -> None:
        width = max(map(len, self.rows))
        self.ids = torch.tensor([[0] * (width - len(row)) + row for row in self.rows])
        self.mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in self.rows])
        self.one = torch.tensor([self.rows[0]])

    def generate(self, ids: torch.Tensor | None = None, **options: object) -> torch.Tensor:
        if ids is None:
            return self.model.generate(self.ids, attention_mask=self.mask, **(FREE | options))
        return self.model.generate(ids, attention_mask=torch.ones_like(ids), **(FREE | options))


def build(kind: str, first_seed: int = 0, **changes: object) -> UltraFuserForCausalLM:
    own = [tiny_llama(seed, **changes) for seed in range(first_seed, first_seed + 3)]
    return fuse_by_hand(own, UNLIKE if kind == "unlike" else None, seed=first_seed)


def rows_of(kind: str) -> list[list[int]]:
    conversations = [[[20, 21, 22], [30, 31], [23, 24]], [[25, 26]]]
    if kind == "unlike":
        return [UNLIKE.fused_ids(turns) for turns in conversations]
    return [[1, 20, 21, 22, 2, 30, 31, 23, 24, 2], [1, 25, 26]]


@torch.no_grad()
def next_logits(model: UltraFuserForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    return model(ids, use_cache=False).logits[:, -1]


def stepwise(
    model: UltraFuserForCausalLM, ids: torch.Tensor, steps: int, adjust: Callable[..., torch.Tensor] = lambda ids, logits: logits
) -> torch.Tensor:
    """Greedy continuation of one unpadded prompt (1, T) by whole forward passes."""
    for _ in range(steps):
        ids = torch.cat([ids, adjust(ids, next_logits(model, ids)).argmax(-1, keepdim=True)], dim=1)
    return ids
