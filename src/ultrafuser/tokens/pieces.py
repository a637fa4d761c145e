"""The pieces of a chat template: the token ids that a specialist's own template puts around contents (docs/design.md, "Slots").

The template is rendered on conversations of marked contents and cut at the marks, so any template can be read:

    first | system_open .. system_close | user content | answer | answer content | end | next | user content | answer | ..

`answer` is what the generation prompt writes. `end` is the first special token after an answer; what follows it, up to
the next user content, is `next`. `verify.verify_pieces` compares pieces and content with what the template renders.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ultrafuser.errors import UserError
from ultrafuser.tokens.borders import Border, adds_space, content_border, encode, encode_after, text_leads
from ultrafuser.tokens.rendering import MARKS, cut, render, subject, template_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PIECES = ("first", "system_open", "system_close", "answer", "next")


@dataclass(frozen=True)
class TemplatePieces:
    """Token ids of one template's pieces, in the specialist's own vocabulary; any list may be empty.

    ``end`` is the one token that ends an answer. ``borders`` says per piece how the content after it is tokenised
    (absent: alone). ``notes`` are sentences for the user about what the template cannot do or what was changed.
    """

    first: list[int]
    system_open: list[int]
    system_close: list[int]
    answer: list[int]
    next: list[int]
    end: int
    notes: tuple[str, ...] = ()
    borders: Mapping[str, Border] = field(default_factory=dict)

    def __getitem__(self, piece: str) -> list[int]:
        """The token ids of a piece by its name, one of `PIECES`."""
        ids: list[int] = getattr(self, piece)
        return ids

    def border(self, piece: str) -> Border:
        """How the content after ``piece`` is tokenised."""
        return self.borders.get(piece, Border())


def read_pieces(
    tokenizer: PreTrainedTokenizerBase, *, chat_template: str | None = None, name: str | None = None
) -> TemplatePieces:
    """Read the pieces of ``chat_template`` (Jinja text; the tokenizer's own if None).

    Works alike for a specialist's tokenizer and for a fused one, whose pieces are its slot tokens. ``name`` is
    a specialist's that is to be fused, None where the model is in use. Raises `UserError` that names the specialist, or the
    model's place, and the content when there is no template, it does not render, it drops or repeats a content, or nothing can
    end an answer.
    """
    template, who = template_text(tokenizer, chat_template, name), subject(tokenizer, name)
    notes: list[str] = []
    if "strftime_now" in template:
        notes.append("writes the date of the day: the day of fusing is kept for good")
    texts = _read_turns(tokenizer, template, who, notes)
    texts |= _read_system(tokenizer, template, texts, who, notes)
    end = texts.pop("end")
    ids = {piece: _tokenise(tokenizer, piece, text, end) for piece, text in texts.items()}
    if not ids["answer"]:
        notes.append("writes nothing between a user message and the answer")
    return TemplatePieces(
        **ids,
        end=tokenizer.get_vocab()[end],
        notes=tuple(notes),
        borders={piece: _border(tokenizer, piece, text) for piece, text in texts.items()},
    )


def _read_turns(tokenizer: PreTrainedTokenizerBase, template: str, who: str, notes: list[str]) -> dict[str, str]:
    """The texts of `first`, `answer`, `next` and the end token, from conversations of one to three turns."""
    first, prompt = cut(render(tokenizer, template, ["user1"], who), ["user1"], who)
    history = _read_history(tokenizer, template, who)
    last = _read_last(tokenizer, template, who)
    if history is None:
        notes.append("holds one turn only: a further user message opens like the first")
        end, _ = _read_end(tokenizer, [last], who, notes)
        return {"first": first, "answer": prompt, "next": first, "end": end}
    _, written, after, _ = history
    end, following = _read_end(tokenizer, [after, last], who, notes)
    _compare_third_turn(tokenizer, template, history, who, notes)
    return {"first": first, "answer": _choose_answer(template, prompt, written, notes), "next": following, "end": end}


def _read_history(tokenizer: PreTrainedTokenizerBase, template: str, who: str) -> list[str] | None:
    """The texts around user, answer, user; None when the template fails on them or holds only one of the user messages."""
    marks = ["user1", "answer1", "user2"]
    try:
        text = render(tokenizer, template, marks, who)
    except UserError:
        return None
    held = [mark for mark in ("user1", "user2") if MARKS[mark] in text]
    return None if len(held) == 1 else cut(text, marks, who)


def _read_last(tokenizer: PreTrainedTokenizerBase, template: str, who: str) -> str | None:
    """The text after an answer that is the last message; None when the template cannot end with an answer."""
    marks = ["user1", "answer1"]
    try:
        return cut(render(tokenizer, template, marks, who), marks, who)[-1]
    except UserError:
        return None


def _choose_answer(template: str, prompt: str, written: str, notes: list[str]) -> str:
    """The `answer` text: that of the generation prompt, with the space that finished answers have before them."""
    if prompt.removesuffix(" ") == written.removesuffix(" "):
        return written
    if "add_generation_prompt" not in template and written.startswith(prompt):
        notes.append(f"has no generation prompt: {written[len(prompt) :]!r}, which opens its finished answers, is used")
        return written
    notes.append(f"opens an answer to be written with {prompt!r} but a finished one with {written!r}: the former is used")
    return prompt


def _read_end(tokenizer: PreTrainedTokenizerBase, afters: list[str | None], who: str, notes: list[str]) -> tuple[str, str]:
    """The end token and the text after it, from the texts after an answer inside and at the end of a conversation."""
    written = [after for after in afters if after is not None]
    splits = [split for after in written if (split := _split_at_end(tokenizer, after))]
    ends = list(dict.fromkeys(end for _, end, _ in splits))
    if len(ends) > 1:
        raise UserError(
            f"{who}: its chat template ends an answer with {ends[0]!r} inside a conversation but with {ends[1]!r} "
            "at its end; correct it or give another template"
        )
    if not ends and tokenizer.eos_token is None:
        raise UserError(
            f"{who}: its chat template writes no end token after an answer and its tokenizer has no eos token; "
            "set one or give another template"
        )
    end = ends[0] if ends else str(tokenizer.eos_token)
    if not splits or len(splits) < len(written):
        notes.append(f"does not {'always ' * bool(splits)}write an end token after an answer: {end!r} is put there")
    if space := next((space for space, _, _ in splits if space), ""):
        notes.append(f"writes {space!r} between an answer and {end!r}: it is left out")
    inside = afters[0] or ""
    split = _split_at_end(tokenizer, inside)
    return end, split[2] if split else inside


def _split_at_end(tokenizer: PreTrainedTokenizerBase, after: str) -> tuple[str, str, str] | None:
    """Whitespace, end token and rest of the text after an answer; None when it opens with text or with a beginning token."""
    known = {str(token.content) for token in tokenizer.added_tokens_decoder.values()} | {str(tokenizer.eos_token or "")}
    rest = after.lstrip()
    found = [token for token in known if token and rest.startswith(token)]
    if not found or (end := max(found, key=len)) == tokenizer.bos_token != tokenizer.eos_token:
        return None
    return after[: len(after) - len(rest)], end, rest[len(end) :]


def _compare_third_turn(
    tokenizer: PreTrainedTokenizerBase, template: str, history: list[str], who: str, notes: list[str]
) -> None:
    """Note it when a third turn is written otherwise than the second."""
    marks = ["user1", "answer1", "user2", "answer2", "user3"]
    try:
        texts = cut(render(tokenizer, template, marks, who), marks, who)
    except UserError:
        notes.append("cannot hold three turns by itself: a third is written like the second")
        return
    if texts[:3] + texts[-1:] != history or texts[3:5] != texts[1:3]:
        notes.append("writes a turn otherwise when more turns follow: all are written like the second")


def _read_system(
    tokenizer: PreTrainedTokenizerBase, template: str, turns: dict[str, str], who: str, notes: list[str]
) -> dict[str, str]:
    """The texts around a system content; for a template that holds none, it opens the first user message."""
    marks = ["system", "user1"]
    try:
        opening, closing, prompt = cut(render(tokenizer, template, marks, who), marks, who)
    except UserError:
        notes.append("cannot hold a system message: it is put before the first user message")
        return {"system_open": turns["first"], "system_close": "\n\n"}
    if not turns["answer"].startswith(prompt.removesuffix(" ")):
        notes.append(f"opens an answer with {prompt!r} after a system message: {turns['answer']!r} is used")
    return {"system_open": opening, "system_close": closing}


def _tokenise(tokenizer: PreTrainedTokenizerBase, piece: str, text: str, end: str) -> list[int]:
    """Token ids of a piece where it stands: at the start, after the end token, or after a content."""
    text = text.removesuffix(" ")  # goes to the content, see borders.py
    if piece in ("first", "system_open"):
        return encode(tokenizer, text)
    return encode_after(tokenizer, text, [end] if piece == "next" else text_leads(tokenizer))


def _border(tokenizer: PreTrainedTokenizerBase, piece: str, text: str) -> Border:
    """How the content after a piece is tokenised."""
    if not text and piece in ("first", "system_open"):  # the content opens the whole text
        return Border()
    added = tuple(str(token.content) for token in tokenizer.added_tokens_decoder.values())
    after_special = text.endswith(added) if text else piece == "next"
    return content_border(tokenizer, space=text.endswith(" ") or (after_special and adds_space(tokenizer)))
