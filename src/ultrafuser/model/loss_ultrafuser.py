"""Cross-entropy of the fused distribution (paper, section 2) without a (B, T, V) tensor of logits.

Only positions that carry a label reach the lm_head, and these go through it in blocks that are computed again in the
backward pass, so at most one block of logits exists at a time. PyTorch's own ``linear_cross_entropy`` does not give the
per-token losses in its chunked form, which the loss per domain needs. This file is copied into every saved checkpoint.

Notation: M labelled positions, H hidden width, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

IGNORE = -100
LOGITS_PER_BLOCK = 2**23  # 32 MB of float32


def shifted_token_losses(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, masked_ids: torch.Tensor | None = None
) -> torch.Tensor:
    """Loss of predicting each token, at that token's own index.

    Args:
        hidden: (B, T, H) what the lm_head reads.
        weight: (V, H) rows of the lm_head that may be predicted.
        labels: (B, T) token ids, -100 where there is no loss.
        masked_ids: (K,) ids below V that are never predicted.

    Returns:
        (B, T) float32; 0 where there is no label, and at index 0, which nothing predicts.
    """
    targets = labels[:, 1:]  # (B, T-1)
    chosen = targets != IGNORE
    losses = token_losses(hidden[:, :-1][chosen], weight, targets[chosen], masked_ids)  # (M,)
    spread = hidden.new_zeros(targets.shape, dtype=torch.float32).masked_scatter(chosen, losses)
    return F.pad(spread, (1, 0))  # (B, T)


def token_losses(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, masked_ids: torch.Tensor | None = None
) -> torch.Tensor:
    """-log softmax(weight @ hidden)[target] for every position: hidden (M, H), weight (V, H), targets (M,) -> (M,) float32."""
    if hidden.shape[0] == 0:
        # Still a function of the parameters, so that a batch without labels has a backward pass (other ranks wait for it).
        return hidden.float().sum(-1) + 0.0 * weight[:1].float().sum()
    block = max(1, LOGITS_PER_BLOCK // weight.shape[0])
    blocks = [
        checkpoint(_block_losses, rows, weight, ids, masked_ids, use_reentrant=False)
        for rows, ids in zip(hidden.split(block), targets.split(block), strict=True)
    ]
    return torch.cat(blocks)


def _block_losses(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, masked_ids: torch.Tensor | None
) -> torch.Tensor:
    logits = F.linear(hidden, weight).float()  # (block, V)
    if masked_ids is not None and masked_ids.numel():
        logits = logits.index_fill(-1, masked_ids, float("-inf"))
    return F.cross_entropy(logits, targets, reduction="none")
