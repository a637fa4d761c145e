"""Lets a model, fused or not, answer one conversation, word by word as it comes.

The prompt is encoded as in training: content on its own between the template's pieces (``tokens/encode.py``). A tokenizer whose
chat template has no such pieces encodes it as it will; one without a template gets the prompt as text to be continued.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TextStreamer

from ultrafuser.errors import UserError, plural
from ultrafuser.model.decoding import GREEDY, answer_options, generate
from ultrafuser.tokens.encode import encode_prompt, require_unicode
from ultrafuser.tokens.pieces import read_pieces

Messages = Sequence[Mapping[str, str]]
Write = Callable[[str], None]
COLDEST = 1e-4  # no lower temperature: logits divided by it may be infinite, and long before it samples nothing but the likeliest


@dataclass(frozen=True)
class Decoding:
    """How an answer is chosen. Temperature 0 (below `COLDEST`) is greedy; without one and top_p the model's own settings hold."""

    max_new_tokens: int = 512
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None

    def options(self) -> dict[str, Any]:
        """The options of ``generate`` but for the answer's length."""
        if self.temperature is not None and self.temperature < COLDEST:
            return GREEDY
        given = {name: value for name in ("temperature", "top_p") if (value := getattr(self, name)) is not None}
        return {**given, **({"do_sample": True} if given else {})}


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Args:
        interrupted: Ctrl-C stopped it.
        note: why it was cut off; empty if it was not.
    """

    text: str
    interrupted: bool = False
    note: str = ""


class Telling(TextStreamer):
    """Hands every finished word to ``write`` and keeps the whole in ``text``; both without special tokens."""

    def __init__(self, tokenizer: Any, write: Write) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.write, self.text = write, ""

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Called by transformers with the next words."""
        self.text += text
        self.write(text)


def to_terminal(text: str) -> None:
    """Show ``text`` at once."""
    print(text, end="", flush=True)


def say(model: Any, tokenizer: Any, messages: Messages, decoding: Decoding) -> Answer:
    """`answer` on the terminal: words on stdout, with a newline at the end; on stderr what was not read, and why it ended."""
    said = answer(model, tokenizer, messages, decoding, to_terminal)
    to_terminal("\n")
    if lacking := unknown_words(tokenizer, messages[-1]["content"]):
        print(f"note: this model's vocabulary has no {', '.join(map(repr, lacking))}: read as unknown words", file=sys.stderr)
    if said.note:
        print(f"note: {said.note}", file=sys.stderr)
    return said


@torch.inference_mode()
def answer(model: Any, tokenizer: Any, messages: Messages, decoding: Decoding, write: Write) -> Answer:
    """Answer ``messages``, which end with a user's; hand the words to ``write`` as they come.

    Ctrl-C stops the answer; what there is of it is returned. Raises `UserError` if the prompt is empty or does not fit the model.
    """
    ids = encode(tokenizer, messages)
    if not ids:
        raise UserError("the prompt is empty, and nothing stands before it; give some text to be continued")
    room = room_for(model, decoding)
    if len(ids) > room:
        raise UserError(f"the prompt has {len(ids)} tokens, but this model has room for {room} and an answer; shorten it")
    if decoding.seed is not None:
        torch.manual_seed(decoding.seed)
    teller = Telling(tokenizer, write)
    input_ids = torch.tensor([ids], device=model.device)  # (1, T)
    longest = min(decoding.max_new_tokens, positions(model) - len(ids))
    options = decoding.options() | answer_options(model, tokenizer.eos_token_id, longest)
    try:
        output = generate(
            model, input_ids=input_ids, attention_mask=torch.ones_like(input_ids), tokenizer=tokenizer, streamer=teller, **options
        )
    except KeyboardInterrupt:
        return Answer(teller.text, interrupted=True)
    made = output[0, len(ids) :].tolist()
    ended = len(made) < longest or made[-1] in (options["eos_token_id"] or ())
    more = "give --max-new-tokens more" if longest == decoding.max_new_tokens else f"this model has {positions(model)} positions"
    return Answer(teller.text, note="" if ended else f"cut off after {plural(longest, 'token')}; {more}")


def encode(tokenizer: Any, messages: Messages) -> list[int]:
    """Token ids of a prompt, up to where the answer begins."""
    for message in messages:
        require_unicode(message["content"], f"the {message['role']}'s message")
    if not tokenizer.chat_template:
        return list(tokenizer("\n\n".join(message["content"] for message in messages))["input_ids"])
    try:
        return encode_prompt(tokenizer, read_pieces(tokenizer), messages)
    except UserError:
        try:
            return list(tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=True)["input_ids"])
        except Exception as error:  # whatever the template raises, for example about a system message
            raise UserError(f"the chat template does not take this conversation ({error})") from None


def unknown_words(tokenizer: Any, text: str) -> list[str]:
    """The words of ``text`` that the vocabulary cannot write, as small worlds' vocabularies cannot."""
    unknown = tokenizer.unk_token_id
    if unknown is None:
        return []
    words = {word: tokenizer(word, add_special_tokens=False)["input_ids"] for word in text.split()}
    return [word for word, ids in words.items() if unknown in ids and word != tokenizer.unk_token]


def positions(model: Any) -> int:
    """How many tokens prompt and answer may have together."""
    return int(getattr(model.config, "max_position_embeddings", None) or 2**31)


def room_for(model: Any, decoding: Decoding) -> int:
    """How many tokens a prompt may have: what the longest answer leaves, and in small models at least half."""
    return positions(model) - min(decoding.max_new_tokens, positions(model) // 2)
