"""Small tokenizers of three kinds and chat templates as found in the wild, for the tests of tokens/."""

from __future__ import annotations

import functools
import json
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

LINES = [
    "What is 17 times 3? It is 51.",
    "Write a function that returns the sum of two numbers: def f(x, y):\n    return x + y",
    "Below is an instruction that describes a task. ### Instruction: ### Response: User: Assistant: [INST] [/INST]",
    "You are a helpful assistant. Sort the list. Où est le café ?",
] * 4
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


def wrap(
    tokenizer: Tokenizer, *, bos: str | None = "<s>", eos: str | None = "</s>", extra: list[str] = SPECIAL[3:]
) -> PreTrainedTokenizerBase:
    """Put a tokenizers object into the class that the rest of the field uses."""
    names = {key: value for key, value in (("bos_token", bos), ("eos_token", eos)) if value}
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", **names)
    wrapped.add_special_tokens({"extra_special_tokens": extra})
    if bos is None:
        wrapped.bos_token = None
    if eos is None:
        wrapped.eos_token = None
    return wrapped


def byte_level(**kwargs: Any) -> PreTrainedTokenizerBase:
    """Byte-level BPE like GPT-2, Llama 3 and Qwen: adds no space to a content."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    return wrap(tokenizer, **kwargs)


def _sentencepiece() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=SPECIAL + [f"<0x{i:02X}>" for i in range(256)], show_progress=False
    )
    tokenizer.train_from_iterator([line.replace("\n", " ") for line in LINES], trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(pair) for pair in trained["merges"]]
    whole = Tokenizer(models.BPE(trained["vocab"], merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    whole.add_special_tokens(SPECIAL)  # but the byte tokens are ordinary ones
    whole.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return whole


def llama_prepend(**kwargs: Any) -> PreTrainedTokenizerBase:
    """Llama-2 as its tokenizer.json has it: a normaliser puts "▁" before every stretch of text."""
    tokenizer = _sentencepiece()
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = None
    return wrap(tokenizer, **kwargs)


def llama_metaspace(scheme: str = "always", **kwargs: Any) -> PreTrainedTokenizerBase:
    """Llama-2 as newer files have it: Metaspace puts "▁" before every stretch of text, or only before the first."""
    tokenizer = _sentencepiece()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    return wrap(tokenizer, **kwargs)


def word_level(**kwargs: Any) -> PreTrainedTokenizerBase:
    """One token per word, white space dropped."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.train_from_iterator(LINES, trainers.WordLevelTrainer(special_tokens=SPECIAL, show_progress=False))
    return wrap(tokenizer, **kwargs)


KINDS = {
    "byte_level": byte_level,
    "prepend": llama_prepend,
    "metaspace": llama_metaspace,
    "metaspace_first": lambda **kwargs: llama_metaspace("first", **kwargs),
    "word_level": word_level,
}


@functools.cache
def tokenizer(kind: str) -> PreTrainedTokenizerBase:
    """The tokenizer of this kind, built once: not for tests that change it."""
    return KINDS[kind]()


# A default system prompt when none is given, as Qwen 2.5 has.
QWEN25 = """{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else %}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) or message.role == 'assistant' %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

# Empty thoughts only in an answer after the last user message, as Qwen 3 has.
QWEN3 = """{%- set ns = namespace(last=0) %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {%- set ns.last = loop.index0 %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'assistant' and loop.index0 > ns.last %}
        {{- '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' + message.content.lstrip('\\n') + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

# Official Llama 2: checks the order, has no use for add_generation_prompt.
LLAMA2 = """{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""  # noqa: E501

# Refuses a system message, as Gemma and the first Mistral do.
NO_SYSTEM = """{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% elif message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}{% else %}{{ message['content'] + eos_token }}{% endif %}{% endfor %}"""  # noqa: E501

ONE_TURN = "{{ 'User: ' + messages[-1]['content'] + '\\nAssistant:' }}"
NO_END = "{% for m in messages %}{{ ('User: ' if m.role == 'user' else '') + m.content + ('\\nAssistant:' if m.role == 'user' else '\\n') }}{% endfor %}"  # noqa: E501
DROPS_ANSWER = "{% for m in messages if m.role == 'user' %}{{ 'User: ' + m.content + '\\nAssistant:' }}{% endfor %}"
DROPS_USER = "{{ bos_token }}User: Assistant:"
BROKEN = "{% for m in messages %}{{ m.content }"
FAILS = "{{ raise_exception('no chat today') }}"
HEADER_WITH_ANSWER = (
    "{% for m in messages %}{{ m.role + ': ' + m.content + ('</s>' if m.role == 'assistant' else '\\n') }}{% endfor %}"
)
