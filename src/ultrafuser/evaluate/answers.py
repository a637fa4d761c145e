"""Let a model answer many prompts: any Hugging Face causal LM, fused or plain, whose tokenizer has a chat template.

Prompts of like length share a batch and are padded on the left, so that every answer starts at the same place. Content is
tokenised on its own, as in training (see ``tokens/encode.py``), so a model sees in evaluation what it saw in training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from ultrafuser.model.decoding import GREEDY, answer_options, generate
from ultrafuser.tokens.encode import encode_prompt
from ultrafuser.tokens.pieces import read_pieces

Messages = Sequence[Mapping[str, str]]


def generate_answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Messages],
    *,
    max_new_tokens: int,
    batch_size: int = 32,
    progress: bool = True,
) -> list[str]:
    """Answer every prompt greedily and return the answers in the order of the prompts, special tokens skipped.

    Args:
        model: a causal LM with ``generate``; it is put into evaluation mode.
        tokenizer: its tokenizer, with a chat template (`UserError` otherwise).
        prompts: message lists that end with a user turn.
        max_new_tokens: an answer stops here, or before at one of the end tokens of ``model.generation_config``.
        batch_size: prompts per batch.
        progress: show a progress bar.
    """
    pieces = read_pieces(tokenizer)
    encoded = [encode_prompt(tokenizer, pieces, messages) for messages in prompts]
    # The longest first: if memory does not suffice, that shows at once.
    order = sorted(range(len(encoded)), key=lambda index: -len(encoded[index]))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    options = GREEDY | answer_options(model, pieces.end, max_new_tokens)
    answers = [""] * len(encoded)
    model.eval()
    for batch in track(batches, "Answering", console=Console(stderr=True), disable=not progress, transient=True):
        for index, ids in zip(batch, _generate(model, tokenizer, [encoded[index] for index in batch], options), strict=True):
            answers[index] = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip()
    return answers


@torch.inference_mode()
def _generate(model: Any, tokenizer: Any, prompts: Sequence[list[int]], options: Mapping[str, Any]) -> list[list[int]]:
    """Continue one batch of prompts; each answer is cut before its first end token."""
    width = max(map(len, prompts))
    padded = [[options["pad_token_id"]] * (width - len(ids)) + ids for ids in prompts]
    mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts]
    output = generate(
        model,
        input_ids=torch.tensor(padded, device=model.device),  # (B, T)
        attention_mask=torch.tensor(mask, device=model.device),
        tokenizer=tokenizer,  # for settings that end an answer at a string
        **options,
    )
    ends, answers = options["eos_token_id"], output[:, width:].tolist()
    return [ids[: next((place for place, token in enumerate(ids) if token in ends), len(ids))] for ids in answers]
