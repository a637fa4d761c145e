"""Tiny random specialists for tests: a whole Hugging Face directory (weights, tokenizer, chat template) in about 50 ms.

All share one byte-level BPE vocabulary, so any of them can be fused; templates, sizes and architectures are free.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<pad>"]
TEXT = (
    "The quick brown fox jumps over the lazy dog. What is the sum of 12 and 30? The sum is 42. "
    "def add(first, second): return first + second  User: Assistant: system user assistant "
    "[INST] [/INST] ### Instruction: ### Response: Below is an instruction that describes a task. "
)
TEMPLATES = {
    "user": (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] + '\n' }}"
        "{% elif m['role'] == 'user' %}{{ 'User: ' + m['content'] + '\nAssistant:' }}"
        "{% else %}{{ m['content'] + eos_token + '\n' }}{% endif %}{% endfor %}"
    ),
    "inst": (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}{{ '<<SYS>>' + m['content'] + '<</SYS>>' }}"
        "{% elif m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
        "{% else %}{{ m['content'] + eos_token }}{% endif %}{% endfor %}"
    ),
    "chatml": (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
}
END = {"chatml": "<|im_end|>"}
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,
}


@lru_cache(maxsize=8)
def _tokenizer_json(size: int) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 3, trainer)
    return str(tokenizer.to_str())


def tiny_tokenizer(template: str = "user", *, size: int = 320, extra_tokens: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of ``size`` tokens; ``template`` is a name in `TEMPLATES` or Jinja text.

    ``extra_tokens`` get the ids after ``size``, as CodeLlama's own tokens do.
    """
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_tokenizer_json(size)),
        bos_token="<s>",
        eos_token=END.get(template, "</s>"),
        unk_token="<unk>",
        pad_token="<pad>",
    )
    if extra_tokens:
        tokenizer.add_tokens(list(extra_tokens), special_tokens=True)
    tokenizer.chat_template = TEMPLATES.get(template, template)
    return tokenizer


def tiny_specialist(
    path: Path | str,
    model_type: str = "llama",
    seed: int = 0,
    *,
    template: str = "user",
    vocab_size: int | None = None,
    tie: bool = False,
    tokenizer: PreTrainedTokenizerFast | None = None,
    max_shard_size: str = "5GB",
    **config: Any,
) -> Path:
    """Save a random specialist to ``path`` and return it.

    ``vocab_size`` counts embedding rows (None: as many as the tokenizer has tokens); ``config`` overrides `SIZES` and
    may hold ``dtype``. Norm weights and biases are random too, so a tensor put in the wrong place shows.
    """
    tokenizer = tokenizer or tiny_tokenizer(template)
    settings = SIZES | config
    dtype = settings.pop("dtype", torch.float32)
    made = AutoConfig.for_model(
        model_type,
        vocab_size=vocab_size or len(tokenizer),
        tie_word_embeddings=tie,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **settings,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(made).to(dtype).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(path, max_shard_size=max_shard_size)
    tokenizer.save_pretrained(path)
    return Path(path)
