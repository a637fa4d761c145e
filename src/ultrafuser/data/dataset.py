"""Conversations as token arrays: the data set that training reads, with the loss on answers only.

All tokens lie in one flat array, so 300k conversations of 500 tokens take 0.75 GB and forked loader workers share them. A
conversation longer than ``max_length`` is cut after its last exchange that fits, or dropped if none does; both are counted.
Notation: E examples, n tokens in all, T tokens of one example.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch.utils.data import Dataset

from ultrafuser.data.conversations import Conversation, require_domain
from ultrafuser.errors import UserError, plural
from ultrafuser.tokens.encode import EncodedConversation, encode_conversation
from ultrafuser.tokens.pieces import read_pieces

IGNORED = -100  # the label that transformers leave out of the loss
logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ConversationDataset(Dataset[dict[str, Any]]):
    """E examples; item i is ``{"input_ids": (T,) int32, "labels": (T,) int32, "domain_id": int}``.

    ``labels`` equal ``input_ids`` at answer tokens and at the end token after each answer, and -100 elsewhere.
    ``cut`` and ``dropped`` count the over-long conversations per domain name.
    """

    domains: list[str]
    domain_ids: NDArray[np.int32]  # (E,) place in `domains`
    tokens: NDArray[np.int32]  # (n,)
    is_answer: NDArray[np.bool_]  # (n,)
    offsets: NDArray[np.int64]  # (E + 1,) example i is tokens[offsets[i]:offsets[i + 1]]
    max_length: int
    cut: Mapping[str, int]
    dropped: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.domain_ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        # domain_ids raises IndexError past the end and knows negative places; the offsets, one longer, would not
        domain_id, index = int(self.domain_ids[index]), index % len(self)
        span = slice(self.offsets[index], self.offsets[index + 1])
        labels = np.where(self.is_answer[span], self.tokens[span], np.int32(IGNORED))
        return {"input_ids": self.tokens[span].copy(), "labels": labels, "domain_id": domain_id}

    @property
    def counts(self) -> dict[str, int]:
        """Examples by domain name."""
        sizes = np.bincount(self.domain_ids, minlength=len(self.domains)).tolist()
        return dict(zip(self.domains, sizes, strict=True))

    @property
    def complete(self) -> bool:
        """Was no conversation cut or dropped?"""
        return not (any(self.cut.values()) or any(self.dropped.values()))

    def summary(self) -> str:
        """One line: examples and tokens, and how many conversations were cut or dropped, per domain."""
        parts = [f"{plural(len(self), 'example')} ({_counts(self.counts)}), {plural(len(self.tokens), 'token')}"]
        if any(self.cut.values()):
            parts.append(f"{sum(self.cut.values())} cut at a turn boundary ({_counts(self.cut)})")
        if any(self.dropped.values()):
            parts.append(f"{sum(self.dropped.values())} dropped, first exchange too long ({_counts(self.dropped)})")
        return "; ".join(parts) + f"; max_length {self.max_length}"


def encode_dataset(
    conversations: Sequence[Conversation], tokenizer: Any, *, domains: Sequence[str], max_length: int, progress: bool = True
) -> ConversationDataset:
    """Tokenise ``conversations`` with the pieces of the tokenizer's chat template; domain ids are places in ``domains``.

    Warns with the summary if anything was cut or dropped. Raises `UserError` for a bad ``max_length``, an unknown domain, a
    conversation without a response, a domain without an example that fits, or a chat template that cannot be read.
    """
    if max_length < 1:
        raise UserError(f"max_length is {max_length}; it must be at least 1")
    pieces = read_pieces(tokenizer)
    gathered = _Gathered(list(domains), max_length)
    for conversation in track(conversations, "Tokenising", console=Console(stderr=True), disable=not progress):
        require_domain(conversation.domain, domains, conversation.where)
        encoded = encode_conversation(tokenizer, pieces, conversation.messages)
        if not encoded.turn_ends:
            raise UserError(f"{conversation.where}: has no response; end with the assistant's message")
        gathered.add(conversation.domain, encoded)
    dataset = gathered.dataset()
    _require_examples(dataset)
    if not dataset.complete:
        logger.warning(dataset.summary())
    return dataset


class _Gathered:
    """The examples so far, in flat arrays that grow; each no longer than ``max_length``."""

    def __init__(self, domains: list[str], max_length: int):
        self.domains, self.max_length = domains, max_length
        self.tokens, self.is_answer, self.offsets, self.domain_ids = array("i"), array("b"), array("q", [0]), array("i")
        self.cut, self.dropped = dict.fromkeys(domains, 0), dict.fromkeys(domains, 0)

    def add(self, domain: str, encoded: EncodedConversation) -> None:
        """Add a conversation, cut or dropped where it is too long, and count that."""
        length = fitting_length(encoded.turn_ends, self.max_length)
        if length == 0:
            self.dropped[domain] += 1
            return
        self.cut[domain] += length < encoded.turn_ends[-1]
        self.tokens.extend(encoded.input_ids[:length])
        self.is_answer.extend(encoded.is_answer[:length])
        self.offsets.append(len(self.tokens))
        self.domain_ids.append(self.domains.index(domain))

    def dataset(self) -> ConversationDataset:
        """The data set of these arrays, which nothing may be added to any more."""
        return ConversationDataset(
            domains=self.domains,
            domain_ids=np.frombuffer(self.domain_ids, np.int32),
            tokens=np.frombuffer(self.tokens, np.int32),
            is_answer=np.frombuffer(self.is_answer, np.bool_),
            offsets=np.frombuffer(self.offsets, np.int64),
            max_length=self.max_length,
            cut=self.cut,
            dropped=self.dropped,
        )


def fitting_length(turn_ends: Sequence[int], max_length: int) -> int:
    """Tokens of the longest prefix of whole exchanges that fits ``max_length``, 0 if not even the first exchange does."""
    return max((end for end in turn_ends if end <= max_length), default=0)


def _require_examples(dataset: ConversationDataset) -> None:
    for domain in (domain for domain, count in dataset.counts.items() if not count):
        why = "the data has none; add some or leave the domain out"
        if dropped := dataset.dropped[domain]:
            its = "its only one is" if dropped == 1 else f"all {dropped} are"
            why = f"{its} longer than max_length {dataset.max_length}; raise it or add shorter ones"
        raise UserError(f"domain '{domain}' has no example to train on: {why}")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count)
