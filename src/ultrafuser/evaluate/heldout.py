"""Held-out loss: how well a model, fused or plain, predicts answers it has not seen, in nats per answer token and domain.

Counterpart of the paper's "loss of each specialist on each domain". Every model reads the conversations in its own chat
template; the loss is on answer tokens and the end token after each answer, as in training. Models that share a vocabulary are
comparable by it, whatever their templates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.progress import track

from ultrafuser.data.collate import Collator
from ultrafuser.data.conversations import Conversation
from ultrafuser.data.dataset import IGNORED, encode_dataset
from ultrafuser.intervals import Interval, normal, ratio_error


class DomainLoss(NamedTuple):
    """Mean loss in nats per answer token, its standard error over conversations, and the number of answer tokens."""

    mean: float
    standard_error: float
    tokens: int

    def interval(self) -> Interval:
        """The loss with its 95% interval."""
        return normal(self.mean, self.standard_error, self.tokens)


def heldout_loss(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Conversation],
    *,
    batch_size: int = 16,
    max_length: int = 1024,
    progress: bool = True,
) -> dict[str, DomainLoss]:
    """Mean loss per answer token of ``model`` on each domain of ``conversations``, in the order in which they first appear.

    Conversations longer than ``max_length`` tokens are cut at a turn boundary or left out, as in training. The standard error
    takes the conversation, not the token, as the independent unit. The model is put into evaluation mode.
    """
    domains = list(dict.fromkeys(conversation.domain for conversation in conversations))
    dataset = encode_dataset(conversations, tokenizer, domains=domains, max_length=max_length, progress=False)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    collate = Collator(pad)
    items = [dataset[index] for index in range(len(dataset))]
    items.sort(key=lambda item: -len(item["input_ids"]))
    sums: dict[int, list[float]] = {index: [] for index in range(len(domains))}
    counts: dict[int, list[float]] = {index: [] for index in range(len(domains))}
    model.eval()
    starts = range(0, len(items), batch_size)
    for start in track(starts, "Held-out loss", console=Console(stderr=True), disable=not progress, transient=True):
        batch = items[start : start + batch_size]
        losses, tokens = _batch_losses(model, collate(batch))
        for item, loss, count in zip(batch, losses, tokens, strict=True):
            sums[int(item["domain_id"])].append(loss)
            counts[int(item["domain_id"])].append(count)
    return {
        name: DomainLoss(*ratio_error(sums[index], counts[index]), round(sum(counts[index])))
        for index, name in enumerate(domains)
        if sum(counts[index])
    }


@torch.inference_mode()
def _batch_losses(model: Any, batch: dict[str, torch.Tensor]) -> tuple[list[float], list[float]]:
    """Summed loss and number of answer tokens of each conversation of a collated batch; two lists of B numbers."""
    ids = batch["input_ids"].to(model.device)  # (B, T)
    logits = model(input_ids=ids, attention_mask=batch["attention_mask"].to(model.device), use_cache=False).logits[:, :-1]
    labels = batch["labels"].to(model.device)[:, 1:]  # (B, T-1), the token each position predicts
    wanted = labels != IGNORED
    # Only answer positions go to float32: prompts are often most of a batch.
    losses = torch.nn.functional.cross_entropy(logits[wanted].float(), labels[wanted], reduction="none")
    rows = wanted.nonzero()[:, 0].cpu()
    sums = torch.zeros(len(ids), dtype=torch.float64).index_add_(0, rows, losses.cpu().double())
    return sums.tolist(), wanted.sum(1).tolist()
