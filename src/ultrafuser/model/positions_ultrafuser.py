"""Where tokens stand for a specialist that sees only some of them. Copied into every saved checkpoint."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from transformers.cache_utils import Cache


def positions(visible: torch.Tensor) -> torch.Tensor:
    """Position of each token counted over the visible ones: (.., S) bool or 0/1 -> (.., S) int64."""
    return (visible.long().cumsum(-1) - 1).clamp(min=0)


def within_window(window: int, seen: torch.Tensor | None, new: int, cache: Cache | None) -> Callable[..., torch.Tensor]:
    """Mask function "fewer than ``window`` visible tokens ago", counted in the specialist's own positions."""
    if seen is None:
        return lambda b, h, q, k: q - k < window
    length = cache.get_mask_sizes(new, 0)[0] if cache is not None else seen.shape[-1]
    where = positions(F.pad(seen.long(), (0, max(0, length - seen.shape[-1]))))  # static caches are longer than what was seen
    return lambda b, h, q, k: where[b, q] - where[b, k] < window
