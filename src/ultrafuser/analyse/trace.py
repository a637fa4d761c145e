"""Which specialist produced which token: the gate's weights along the answers of a fused model (the paper's figures 6, 8, 9).

The gate weighs the specialists at the position that predicts a token. So the weights that belong to answer token t are those
at position t - 1; for the first answer token that is the last token of the prompt.
Notation: B conversations, L tokens of the longest, T answer tokens of one conversation, N specialists.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ultrafuser.data.collate import Collator
from ultrafuser.data.conversations import Conversation
from ultrafuser.data.dataset import IGNORED
from ultrafuser.errors import UserError
from ultrafuser.model.decoding import GREEDY, answer_options, generate
from ultrafuser.tokens.encode import EncodedConversation, encode_conversation, encode_prompt
from ultrafuser.tokens.pieces import read_pieces

END_MARK = "∎"  # stands for a token that ends an answer, whatever its name in the vocabulary
Messages = Sequence[Mapping[str, str]]


@dataclass(frozen=True, eq=False)
class TokenTrace:
    """The answer tokens of one conversation and how much every specialist had to say in each.

    ``weights`` is float32 (T, N), rows sum to 1; ``tokens`` are T texts that joined give the answer (`END_MARK` for its end).
    ``labels`` names the domain of each token where it is known per token (mixed answers); it may be shorter than ``tokens``
    by the end token. Where it is None, all tokens are of ``domain``.
    """

    domain: str
    prompt: str
    tokens: list[str]
    weights: NDArray[np.float32]
    labels: list[str] | None = None

    def label(self, place: int) -> str | None:
        """The domain that token ``place`` belongs to; None for an unlabelled end token."""
        if self.labels is None:
            return self.domain
        return self.labels[place] if place < len(self.labels) else None


def trace_conversations(
    model: Any,
    tokenizer: Any,
    conversations: Sequence[Conversation],
    *,
    labels: Sequence[Sequence[str] | None] | None = None,
    batch_size: int = 16,
) -> list[TokenTrace]:
    """Trace the given answers (teacher forced), in the order of ``conversations``; the model is put into evaluation mode.

    ``labels`` has an entry per conversation: the domain of each answer token, or None for a conversation of one domain. Raises
    ValueError when labels do not fit the answer's tokens.
    """
    pieces = read_pieces(tokenizer)
    encoded = [encode_conversation(tokenizer, pieces, conversation.messages) for conversation in conversations]
    order = sorted(range(len(encoded)), key=lambda index: -len(encoded[index].input_ids))
    found: dict[int, TokenTrace] = {}
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        for index, weights in zip(batch, _weights(model, tokenizer, [encoded[index] for index in batch]), strict=True):
            own = None if labels is None else labels[index]
            found[index] = _trace(tokenizer, conversations[index], encoded[index], weights, own, [pieces.end])
    return [found[index] for index in range(len(encoded))]


def trace_answer(model: Any, tokenizer: Any, messages: Messages, max_new_tokens: int = 256, *, domain: str = "") -> TokenTrace:
    """Let the model answer ``messages`` (greedy; they end with a user turn) and trace the answer it gave.

    The answer has ``max_new_tokens`` at most, and fewer where the model has positions for fewer. Raises `UserError` if it has
    none for an answer.
    """
    pieces = read_pieces(tokenizer)
    prompt = encode_prompt(tokenizer, pieces, messages)
    room = int(model.config.max_position_embeddings) - len(prompt)
    if room < 1:
        raise UserError(f"the prompt has {len(prompt)} tokens, but this model has {len(prompt) + room} positions; shorten it")
    options = GREEDY | answer_options(model, pieces.end, min(max_new_tokens, room))
    input_ids = torch.tensor([prompt], device=model.device)  # (1, L)
    model.eval()
    with torch.inference_mode():
        output = generate(model, input_ids=input_ids, attention_mask=torch.ones_like(input_ids), tokenizer=tokenizer, **options)
    ids = output[0].tolist()
    encoded = EncodedConversation(ids, [place >= len(prompt) for place in range(len(ids))], [len(ids)])
    conversation = Conversation(domain, [dict(message) for message in messages], "prompt")
    ends = [pieces.end, *options["eos_token_id"]]
    return _trace(tokenizer, conversation, encoded, _weights(model, tokenizer, [encoded])[0], None, ends)


def token_texts(tokenizer: Any, ids: Sequence[int], ends: Collection[int]) -> list[str]:
    """The text that each token adds to an answer; the texts joined are the decoded answer, the ``ends`` being `END_MARK`.

    Tokens cannot be decoded one by one: many tokenizers drop a leading space then, and a character may span several
    tokens. Such a character is given to its last token, the tokens before it get an empty text.
    """
    texts: list[str] = []
    context = done = 0  # decoded so far is ids[:done]; ids[context:done] is enough of it to place the next text
    for place, token in enumerate(ids):
        if token in ends:
            texts.append(END_MARK)
            context = done = place + 1
            continue
        before = tokenizer.decode(ids[context:done], clean_up_tokenization_spaces=False)
        now = tokenizer.decode(ids[context : place + 1], clean_up_tokenization_spaces=False)
        if now.endswith("\ufffd") and place + 1 < len(ids) and ids[place + 1] not in ends:
            texts.append("")
            continue
        texts.append(now[len(before) :])
        context, done = done, place + 1
    return texts


@torch.inference_mode()
def _weights(model: Any, tokenizer: Any, encoded: Sequence[EncodedConversation]) -> list[NDArray[np.float32]]:
    """The gate's weights that predict the answer tokens: one (T, N) array per conversation."""
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    batch = Collator(pad)(
        [
            {"input_ids": own.input_ids, "labels": np.where(own.is_answer, own.input_ids, IGNORED), "domain_id": 0}
            for own in encoded
        ]
    )
    output = model(
        input_ids=batch["input_ids"].to(model.device),
        attention_mask=batch["attention_mask"].to(model.device),
        use_cache=False,
        output_gate_weights=True,
        logits_to_keep=1,  # only the gate is wanted: no (B, L, V) tensor
    )
    gate = output.gate_weights.float().cpu()  # (B, L, N)
    is_answer = batch["labels"] != IGNORED  # (B, L)
    return [own[:-1][mask[1:]].numpy() for own, mask in zip(gate, is_answer, strict=True)]


def _trace(
    tokenizer: Any,
    conversation: Conversation,
    encoded: EncodedConversation,
    weights: NDArray[np.float32],
    labels: Sequence[str] | None,
    ends: Collection[int],
) -> TokenTrace:
    answer = [token for token, is_answer in zip(encoded.input_ids, encoded.is_answer, strict=True) if is_answer]
    tokens = token_texts(tokenizer, answer, ends)
    if labels is not None and not len(tokens) - 1 <= len(labels) <= len(tokens):
        raise ValueError(
            f"{conversation.where}: {len(labels)} labels for {len(tokens)} answer tokens (its end token may have none)"
        )
    prompt = "\n\n".join(message["content"] for message in conversation.messages if message["role"] != "assistant")
    return TokenTrace(conversation.domain, prompt, tokens, weights, None if labels is None else list(labels))
