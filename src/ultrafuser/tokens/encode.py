"""Conversations as token ids: template pieces around contents that are tokenised on their own (docs/design.md, "Slots").

With a fused tokenizer the result is that of its chat template; with a specialist's own tokenizer it is what its own
template renders, but for tokens that would merge across a border (`verify.verify_pieces` shows those).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ultrafuser.errors import UserError
from ultrafuser.tokens.borders import content_ids
from ultrafuser.tokens.pieces import TemplatePieces

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class EncodedConversation:
    """T tokens. ``is_answer`` is True where the loss is: answer tokens and the end token after each answer.

    ``turn_ends`` has, for each exchange of a user and an assistant message, the number of tokens up to and
    including its end token: the places where a conversation may be cut.
    """

    input_ids: list[int]
    is_answer: list[bool]
    turn_ends: list[int]


def encode_conversation(tokenizer: PreTrainedTokenizerBase, pieces: TemplatePieces, messages: Messages) -> EncodedConversation:
    """Encode ``[system,] user, assistant, user, ..``. Raises `UserError` for other roles, another order, no text."""
    input_ids: list[int] = []
    is_answer: list[bool] = []
    turn_ends: list[int] = []
    for label, ids in parts(tokenizer, pieces, messages):
        input_ids += ids
        is_answer += [label in ("assistant", "end")] * len(ids)
        if label == "end":
            turn_ends.append(len(input_ids))
    return EncodedConversation(input_ids, is_answer, turn_ends)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, pieces: TemplatePieces, messages: Messages) -> list[int]:
    """Token ids of a conversation that ends with a user message, up to where the answer begins. Raises `UserError`."""
    if not messages or messages[-1].get("role") != "user":
        raise UserError("a prompt ends with a user message; drop what follows it or encode it as a conversation")
    return encode_conversation(tokenizer, pieces, messages).input_ids + pieces.answer


def parts(tokenizer: PreTrainedTokenizerBase, pieces: TemplatePieces, messages: Messages) -> Iterator[tuple[str, list[int]]]:
    """The conversation as (label, token ids), in order; the label is a piece's name, "end", or the role of a content."""
    check_messages(messages)
    system = messages[0]["role"] == "system"
    if system:
        yield "system_open", pieces.system_open
        yield "system", content_ids(tokenizer, messages[0]["content"], pieces.border("system_open"))
    opening = "system_close" if system else "first"
    for message in messages[system:]:
        before = opening if message["role"] == "user" else "answer"
        yield before, pieces[before]
        yield message["role"], content_ids(tokenizer, message["content"], pieces.border(before))
        if message["role"] == "assistant":
            yield "end", [pieces.end]
        opening = "next"


def check_messages(messages: Messages) -> None:
    """Raise `UserError` unless the messages are ``[system,] user, assistant, user, ..``, each with text."""
    system = bool(messages) and messages[0].get("role") == "system"
    if len(messages) <= system:
        raise UserError("a conversation needs at least one user message")
    for i, message in enumerate(messages):
        expected = "system" if system and i == 0 else ("user", "assistant")[(i - system) % 2]
        if message.get("role") != expected:
            raise UserError(
                f"message {i + 1} has the role {message.get('role')!r} where {expected!r} is due; "
                "a conversation is [system,] user, assistant, user, .."
            )
        if not isinstance(message.get("content"), str):
            raise UserError(f"message {i + 1} has no text: 'content' is {message.get('content')!r}")
        require_unicode(message["content"], f"message {i + 1}")


def require_unicode(text: str, what: str) -> None:
    """Raise `UserError` for text with halves of characters, as typed bytes of another encoding become: no tokenizer takes it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{what} is not valid Unicode ({error.reason} at {error.start})") from None
