"""The loss without logits against ``cross_entropy`` of all logits, across the borders of its blocks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from reference import VOCAB, Templates, fuse_by_hand, tiny_llama
from ultrafuser.model import loss_ultrafuser as loss

V, H = 23, 8
UNPREDICTABLE = torch.tensor([3, 7, 21, 22])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of two positions forward and of five columns backward: borders everywhere, none of them even."""
    monkeypatch.setattr(loss, "LOGITS_PER_BLOCK", 2 * V)
    monkeypatch.setattr(loss, "LEAST_COLUMNS", 5)


def problem(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    hidden, weight = torch.randn(2, 9, H, dtype=dtype), torch.randn(V, H, dtype=dtype)
    labels = torch.tensor([[0, 1, 2, 4, 5, 6, 8, 9, 10], [-100, 11, 20, 22, 19, 18, 4, -100, 5]])
    return hidden.requires_grad_(), weight.requires_grad_(), labels


def reference(hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    labels = labels.masked_fill(torch.isin(labels, UNPREDICTABLE), -100)
    logits = (hidden @ weight.T).float().index_fill(-1, UNPREDICTABLE, float("-inf"))
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), labels[:, 1:], reduction="none")  # 0 where the label is -100


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_losses_and_gradients(dtype, tolerance):
    """Each token's loss and both gradients under unequal weights per token: catches a block's border, a lost label
    or a loss on a token that is never predicted (22)."""
    scale = torch.linspace(0.1, 2.0, 16).view(2, 8)
    results = []
    for compute in (lambda h, w, y: loss.target_losses(h[:, :-1], w, y[:, 1:], UNPREDICTABLE), reference):
        hidden, weight, labels = problem(dtype)
        losses = compute(hidden, weight, labels)
        (losses * scale).sum().backward()
        results.append((losses, hidden.grad, weight.grad))
    for got, want in zip(*results, strict=True):
        assert got.dtype == want.dtype
        torch.testing.assert_close(got, want, atol=tolerance, rtol=tolerance)
    assert results[0][2][UNPREDICTABLE].eq(0).all()


def test_autocast_multiplies_in_half_precision():
    """Under autocast the products are bfloat16 in both passes, the gradients float32 as the weights are."""
    hidden, weight, labels = problem(torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = loss.target_losses(hidden[:, :-1], weight, labels[:, 1:], UNPREDICTABLE)
    losses.sum().backward()
    rounded = reference(hidden.detach().bfloat16(), weight.detach().bfloat16(), labels)
    torch.testing.assert_close(losses, rounded, atol=1e-6, rtol=1e-6)
    assert hidden.grad.dtype == weight.grad.dtype == torch.float32


def test_frozen_head_and_batch_without_labels():
    """A frozen lm_head gets no gradient; a batch without labels still has a backward pass, of zeros, for the other ranks."""
    hidden, weight, labels = problem(torch.float32)
    loss.target_losses(hidden[:, :-1], weight.detach(), labels[:, 1:], UNPREDICTABLE).sum().backward()
    assert hidden.grad.abs().sum() > 0 and weight.grad is None
    hidden.grad = None
    empty = loss.target_losses(hidden, weight, torch.full_like(labels, -100), UNPREDICTABLE)
    empty.sum().backward()
    assert empty.eq(0).all() and hidden.grad.eq(0).all() and weight.grad.eq(0).all()


def test_labels_and_shifted_labels_of_the_model():
    """Pre-shifted labels (sequence parallelism) give the same loss as labels, and replace them; slots are no labels."""
    templates = Templates(user=[[1, 2], [5]], answer=[[8], [9]])
    model = fuse_by_hand([tiny_llama(0), tiny_llama(1)], templates)
    ids = torch.tensor([templates.fused_ids([[20, 21, 22], [30, 31], [23]])])
    labels = ids.masked_fill(ids >= VOCAB, -100)
    shifted = F.pad(labels[:, 1:], (0, 1), value=-100)
    plain = model(ids, labels=labels, output_token_losses=True)
    moved = model(ids, shift_labels=shifted, labels=torch.zeros_like(ids), output_token_losses=True)
    torch.testing.assert_close(moved.loss, plain.loss)
    torch.testing.assert_close(moved.token_losses[:, :-1], plain.token_losses[:, 1:])
    torch.testing.assert_close(model(ids, labels=ids).loss, plain.loss)


def test_labels_that_are_never_predicted():
    """Catches an infinite loss at a slot token, a mean that counts it, and a number of items not taken as given."""
    templates = Templates(user=[[1, 2], [5]], answer=[[8], [9]])
    model = fuse_by_hand([tiny_llama(0), tiny_llama(1)], templates)
    ids = torch.tensor([templates.fused_ids([[20, 21, 22], [30, 31], [23]])])
    with torch.no_grad():
        logits = model(ids).logits[0, :-1, :VOCAB]
    targets = ids[0, 1:]
    kept = [place for place, target in enumerate(targets.tolist()) if target < VOCAB]
    losses = [float(F.cross_entropy(logits[place], targets[place])) for place in kept]
    assert 0 < len(kept) < len(targets)
    for labels in (ids, ids.masked_fill(ids >= VOCAB, -100)):
        assert model(ids, labels=labels).loss.item() == pytest.approx(sum(losses) / len(kept), rel=1e-5)
        assert model(ids, labels=labels, num_items_in_batch=len(targets)).loss.item() == pytest.approx(
            sum(losses) / len(targets), rel=1e-5
        )


def test_no_tensor_of_all_logits(monkeypatch):
    """No block is larger than allowed, forward or backward."""
    seen = []
    whole = loss._logits
    monkeypatch.setattr(loss, "_logits", lambda *args: seen.append(whole(*args)) or seen[-1])
    hidden, weight, labels = problem(torch.float32)
    loss.target_losses(hidden[:, :-1], weight, labels[:, 1:], UNPREDICTABLE).sum().backward()
    assert max(block.numel() for block in seen) <= max(2 * V, 14 * 5)  # 14 labelled positions
