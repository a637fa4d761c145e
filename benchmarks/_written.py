"""Random checkpoints on disk, written block by block, so that their size is bounded by the disk and not by memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ultrafuser.model.safetensors_stream import write_checkpoint
from ultrafuser.model.sources import expected_shapes
from ultrafuser.model.tensors import ComputedTensor


def write_specialist(folder: Path, config: Any, seed: int) -> None:
    """A random bfloat16 model of ``config``, with a tokenizer of as many tokens as it has rows."""
    config.save_pretrained(folder)
    torch.manual_seed(seed)
    write_checkpoint(folder, {name: _noise(shape) for name, shape in expected_shapes(config).items()}, max_shard_size=5 * 10**9)
    _tokenizer(config.vocab_size).save_pretrained(folder)


def _noise(shape: tuple[int, ...]) -> ComputedTensor:
    return ComputedTensor(torch.bfloat16, shape, lambda a, b: torch.randn(b - a, *shape[1:], dtype=torch.bfloat16).mul_(0.02))


def _tokenizer(size: int) -> PreTrainedTokenizerFast:
    """Bytes, and tokens that no text has."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<s>", "</s>", *letters, *(f"token{i}" for i in range(size - len(letters) - 2))]
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
