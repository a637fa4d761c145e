"""The one vocabulary of the generated world (a token is a word) and the chat templates, unlike each other in length and shape.

``text``, ``code`` and ``math`` are in the manner of the paper's three specialists: UltraLM, CodeLlama, WizardMath. ``base`` is
what the common base is trained with.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from ultrafuser.miniworld import math_tasks, words
from ultrafuser.miniworld.task import DOMAINS
from ultrafuser.miniworld.world import generate

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>")
TEMPLATES = (*DOMAINS, "base")
SAMPLE = 1000  # tasks per domain in which every fixed word of the requests and answers comes up


def chat_template(name: str) -> str:
    """The Jinja text of ``text``, ``code``, ``math`` or ``base``."""
    return files("ultrafuser.miniworld").joinpath("templates", f"{name}.jinja").read_text(encoding="utf-8")


@cache
def vocabulary() -> tuple[str, ...]:
    """All words, special tokens first; the id of a token is its place."""
    found = {str(number) for number in range(math_tasks.MAX_NUMBER + 1)}
    for item in (words.NAMES, words.THINGS, words.BOXES, words.FUNCTION_NAMES, words.COLOURS, words.ANIMALS):
        found.update(item)
    for table in (words.OPPOSITE_OF, words.CAPITALS):
        found.update(table, table.values())
    found.update(words.VERBS, *words.VERBS.values())
    for domain in DOMAINS:
        for task in generate(domain, SAMPLE, 0, "train"):
            found.update(task.prompt.split(), task.answer.split())
    for name in TEMPLATES:
        found.update(re.sub(r"{[{%].*?[%}]}|</?s>", " ", chat_template(name)).split())
    found.update(("<<SYS>>", "<</SYS>>"))
    return (*SPECIAL_TOKENS, *sorted(found))


def build_tokenizer(template: str) -> PreTrainedTokenizerFast:
    """The tokenizer, with the chat template of ``text``, ``code``, ``math`` or ``base``. Decoding joins words by one space."""
    model = Tokenizer(WordLevel({token: index for index, token in enumerate(vocabulary())}, unk_token="<unk>"))
    model.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=model,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=chat_template(template),
    )
