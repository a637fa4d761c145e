"""Makes a batch of examples: pads on the right, as training does (generation pads on the left, elsewhere).

Notation: B examples, T tokens of the longest one (rounded up to ``pad_to_multiple_of``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ultrafuser.data.dataset import IGNORED


@dataclass(frozen=True)
class Collator:
    """Callable for a `DataLoader`; ``pad_to_multiple_of`` (8, 64) suits GPU kernels and keeps compiled shapes few."""

    pad_token_id: int
    pad_to_multiple_of: int = 1

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Return int64 ``input_ids``, ``attention_mask`` and ``labels`` (B, T), and ``domain_ids`` (B,).

        Padding has id ``pad_token_id``, mask 0 and label -100.
        """
        longest = max(len(example["input_ids"]) for example in examples)
        shape = (len(examples), -(-longest // self.pad_to_multiple_of) * self.pad_to_multiple_of)
        input_ids = torch.full(shape, self.pad_token_id)  # (B, T)
        attention_mask = torch.zeros(shape, dtype=torch.long)  # (B, T)
        labels = torch.full(shape, IGNORED)  # (B, T)
        for row, example in enumerate(examples):
            length = len(example["input_ids"])
            input_ids[row, :length] = torch.as_tensor(example["input_ids"])
            attention_mask[row, :length] = 1
            labels[row, :length] = torch.as_tensor(example["labels"])
        domain_ids = torch.tensor([example["domain_id"] for example in examples])  # (B,)
        return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels, "domain_ids": domain_ids}
