"""Specialists from scratch before they are trained: their tokenizer, templates and shape, all known from recipe and data.

They share one vocabulary and one geometry; each answers in its own chat template. `outline` gives them the form that finished
specialists have, without weights, so that whatever is checked or counted of those is checked and counted of them too.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import CONFIG_MAPPING, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ultrafuser.data.conversations import Conversation
from ultrafuser.miniworld import language
from ultrafuser.model.sources import Specialist, expected_shapes
from ultrafuser.model.tensors import Tensors, from_memory
from ultrafuser.schema import Recipe
from ultrafuser.schema import Specialist as Planned
from ultrafuser.tokens.templates import load_template

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>")
BASE_TEMPLATE = "plain"


def outline(recipe: Recipe, train: Sequence[Conversation]) -> list[Specialist]:
    """The specialists that ``recipe`` trains from scratch on ``train``, as they will be; their weights are on the meta device."""
    tokenizer = new_tokenizer(recipe, train)
    config = geometry(recipe, len(tokenizer), tokenizer)
    weights: Tensors = {name: from_memory(torch.empty(shape, device="meta")) for name, shape in expected_shapes(config).items()}
    outlines = []
    for one in recipe.specialists:
        own = copy.deepcopy(tokenizer)
        own.chat_template = template(recipe, one)
        outlines.append(Specialist(one.name, "trained from scratch", Path(), Path(), config, own, {}, weights))
    return outlines


def geometry(recipe: Recipe, vocab_size: int, tokenizer: PreTrainedTokenizerBase | None = None) -> Any:
    """The transformers config that all specialists from scratch have, with the special token ids of ``tokenizer``."""
    assert recipe.pretrain is not None
    shape = recipe.pretrain.geometry.model_dump()
    ids = {name: getattr(tokenizer, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return CONFIG_MAPPING[shape.pop("model_type")](vocab_size=vocab_size, **shape, **ids)


def template(recipe: Recipe, one: Planned) -> str:
    """The Jinja text of the chat template that a specialist from scratch learns to answer in."""
    if one.template:
        return load_template(one.template)
    if not recipe.world:
        return load_template(BASE_TEMPLATE)
    return language.chat_template(one.name if one.name in language.TEMPLATES else "base")


def new_tokenizer(recipe: Recipe, train: Sequence[Conversation]) -> PreTrainedTokenizerFast:
    """The tokenizer of the common base: the words of the generated world, or a byte-level BPE of ``train``."""
    assert recipe.pretrain is not None
    size = recipe.pretrain.vocab_size
    return train_bpe(train, size) if size else language.build_tokenizer("base")


def train_bpe(conversations: Sequence[Conversation], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most ``vocab_size`` tokens, trained on all messages of ``conversations``."""
    bpe = ByteLevelBPETokenizer()
    texts = (message["content"] for conversation in conversations for message in conversation.messages)
    bpe.train_from_iterator(texts, vocab_size=vocab_size, special_tokens=list(SPECIAL_TOKENS), show_progress=False)
    pad, bos, eos = SPECIAL_TOKENS
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=load_template(BASE_TEMPLATE),
    )
