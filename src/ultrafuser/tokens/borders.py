"""How text is tokenised on either side of a border between a template piece and a content.

Content is never glued to a piece (issue 2, part 3), so a piece and a content are tokenised apart. What a tokenizer does
at the *start* of a text differs, and this file is the only place that knows:

- SentencePiece-like tokenizers put a space before every text, also after a special token ("adds space" below). For them a
  space at the end of a piece is dropped, because the content brings it along.
- Others do not. A space at the end of a piece then moves to the content (`Border.space`): models have seen " word", not " "
  followed by "word".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPACE_MARKS = ("▁", "Ġ")  # how SentencePiece and byte-level vocabularies write a space
TEXT_LEADS = ("\n", ".", "a")  # texts after which a continuation is tried; the first that does not merge with it is used


@dataclass(frozen=True)
class Border:
    """How the content after a piece is tokenised: as ``lead + content``, less the tokens ``head`` of the lead.

    ``space`` says that a space stands between piece and content (given by ``lead``, or added by the tokenizer itself).
    The default tokenises the content alone.
    """

    lead: str = ""
    head: tuple[int, ...] = ()
    space: bool = False


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of ``text`` alone, nothing added by the post-processor. An empty text has no tokens."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) if text else []


def encode_after(tokenizer: PreTrainedTokenizerBase, text: str, leads: Sequence[str]) -> list[int]:
    """Token ids that ``text`` has behind the first of ``leads`` that it does not merge with; alone, if it merges with all."""
    for lead in leads:
        head, whole = encode(tokenizer, lead), encode(tokenizer, lead + text)
        if whole[: len(head)] == head:
            return whole[len(head) :]
    return encode(tokenizer, text)


def anchor(tokenizer: PreTrainedTokenizerBase) -> str:
    """A special token that leaves the text behind it as it is, or "" if the tokenizer has none."""
    for index, token in tokenizer.added_tokens_decoder.items():
        if token.special and not token.rstrip and encode(tokenizer, token.content) == [index]:
            return str(token.content)
    return ""


def adds_space(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer itself puts a space before a text that follows a special token."""
    tokens = tokenizer.convert_ids_to_tokens(encode_after(tokenizer, "a", [anchor(tokenizer)]))
    return bool(tokens) and tokens[0].startswith(SPACE_MARKS)


def text_leads(tokenizer: PreTrainedTokenizerBase) -> Sequence[str]:
    """The leads for a text that continues other text: ordinary ones only where a special token would bring a space in."""
    return TEXT_LEADS if adds_space(tokenizer) else [anchor(tokenizer)]


def content_border(tokenizer: PreTrainedTokenizerBase, *, space: bool) -> Border:
    """The border of a content with or without a space before it."""
    special = anchor(tokenizer)
    if not adds_space(tokenizer):
        return Border(special + " " * space, tuple(encode(tokenizer, special)), space)
    if space:
        return Border(special, tuple(encode(tokenizer, special)), True)
    for lead in TEXT_LEADS:
        head = encode(tokenizer, lead)
        if all(encode(tokenizer, lead + sample)[: len(head)] == head for sample in ("a", "The", "1", "(", "é")):
            return Border(lead, tuple(head), False)
    return Border(space=True)


def content_ids(tokenizer: PreTrainedTokenizerBase, content: str, border: Border) -> list[int]:
    """Token ids of a message's content. Whitespace around it is dropped, as the fused chat template does."""
    content = content.strip()
    ids = encode(tokenizer, border.lead + content)
    if tuple(ids[: len(border.head)]) != border.head:  # the content merged with the lead: tokenise it alone
        return encode(tokenizer, content)
    return ids[len(border.head) :]
