"""Cross-entropy of the fused distribution (paper, section 2) without a (B, T, V) tensor of logits.

Only positions that carry a label reach the lm_head. The forward pass takes them in blocks and keeps two numbers of each;
the backward pass computes the logits again, in blocks of the vocabulary, so that every row of the lm_head's gradient is
written once. At most one block of logits exists at a time. PyTorch's own ``linear_cross_entropy`` does not give the
per-token losses in its chunked form, which the loss per domain needs. This file is copied into every saved checkpoint.

Notation: M labelled positions, H hidden width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

IGNORE = -100
LOGITS_PER_BLOCK = 2**23  # 32 MB of float32
LEAST_COLUMNS = 512  # a narrower block of the vocabulary would be slow


def carries_loss(targets: torch.Tensor, unpredictable_ids: torch.Tensor) -> torch.Tensor:
    """Where there is a loss: bool of the shape of ``targets``; not at -100, nor at what is never predicted (slot tokens).

    The latter's would be infinite. A mean over what is left counts neither. ``num_items_in_batch`` is the caller's: where it
    counts all labels but -100, as the library's Trainer does, it divides the same sum by more. So label such tokens -100.
    """
    return (targets != IGNORE) & ~torch.isin(targets, unpredictable_ids)


def target_losses(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, unpredictable_ids: torch.Tensor
) -> torch.Tensor:
    """Loss of predicting ``targets[b, t]`` from ``hidden[b, t]``.

    Args:
        hidden: (B, T, H) what the lm_head reads.
        weight: (V, H) the lm_head.
        targets: (B, T) token ids, -100 where there is no loss.
        unpredictable_ids: (K,) ids that are never predicted.

    Returns:
        (B, T) float32; 0 where there is no loss.
    """
    chosen = carries_loss(targets, unpredictable_ids)
    losses = token_losses(hidden[chosen], weight, targets[chosen], unpredictable_ids)  # (M,)
    return hidden.new_zeros(targets.shape, dtype=torch.float32).masked_scatter(chosen, losses)


def token_losses(
    hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, unpredictable_ids: torch.Tensor
) -> torch.Tensor:
    """-log softmax(weight @ hidden)[target] for every position: hidden (M, H), weight (V, H), targets (M,) -> (M,) float32."""
    banned = torch.zeros(weight.shape[0], dtype=torch.bool, device=weight.device).index_fill(0, unpredictable_ids, True)
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    losses: torch.Tensor = _TokenLosses.apply(hidden, weight, targets, banned, dtype)
    return losses


def _logits(hidden: torch.Tensor, weight: torch.Tensor, banned: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """hidden (m, H), weight (v, H), banned (v,) -> (m, v) float32."""
    return F.linear(hidden.to(dtype), weight.to(dtype)).float().masked_fill_(banned, float("-inf"))


class _TokenLosses(torch.autograd.Function):
    """Losses (M,) with a backward pass that keeps no logits; multiplies in ``dtype``, everything else is float32."""

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, banned: torch.Tensor, dtype: torch.dtype
    ) -> torch.Tensor:
        rows = max(1, LOGITS_PER_BLOCK // weight.shape[0])
        totals, chosen = [], []
        for part, ids in zip(hidden.split(rows), targets.split(rows), strict=True):
            logits = _logits(part, weight, banned, dtype)  # (rows, V)
            totals.append(logits.logsumexp(dim=-1))
            chosen.append(logits.gather(1, ids[:, None])[:, 0])
        total = torch.cat(totals)  # (M,)
        ctx.save_for_backward(hidden, weight, targets, banned, total)
        ctx.dtype = dtype
        return total - torch.cat(chosen)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, targets, banned, total = ctx.saved_tensors
        grad_hidden = torch.zeros_like(hidden, dtype=torch.float32)
        grad_weight = torch.empty_like(weight) if ctx.needs_input_grad[1] else None
        columns = max(LEAST_COLUMNS, LOGITS_PER_BLOCK // max(1, hidden.shape[0]))
        for first in range(0, weight.shape[0], columns):
            block = slice(first, first + columns)
            # d loss / d logits = softmax - one-hot, for the columns of this block
            slope = _logits(hidden, weight[block], banned[block], ctx.dtype).sub_(total[:, None]).exp_()  # (M, columns)
            place = (targets - first)[:, None]
            here = (place >= 0) & (place < slope.shape[1])
            slope.scatter_add_(1, place.clamp(0, slope.shape[1] - 1), -here.to(slope.dtype))
            slope = slope.mul_(grad[:, None]).to(ctx.dtype)
            grad_hidden += slope @ weight[block].to(ctx.dtype)
            if grad_weight is not None:
                grad_weight[block] = slope.T @ hidden.to(ctx.dtype)
        return grad_hidden.to(hidden.dtype), grad_weight, None, None, None
