"""Render a chat template with marked contents and cut the text at the marks (issue 2, part 3; "Bad input")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ultrafuser.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Contents that no template writes by itself, and what each is called in an error.
MARKS = {
    "system": "UfSystemMarkZ",
    "user1": "UfUserOneMarkZ",
    "answer1": "UfAnswerOneMarkZ",
    "user2": "UfUserTwoMarkZ",
    "answer2": "UfAnswerTwoMarkZ",
    "user3": "UfUserThreeMarkZ",
}
CALLED = {
    "system": "system message",
    "user1": "first user message",
    "answer1": "first assistant message",
    "user2": "second user message",
    "answer2": "second assistant message",
    "user3": "third user message",
}


def subject(tokenizer: PreTrainedTokenizerBase, name: str | None) -> str:
    """What messages call the model of this tokenizer: a specialist to be fused by its name, a model in use by its place."""
    return f"specialist '{name}'" if name else str(tokenizer.name_or_path or "the model")


def template_text(tokenizer: PreTrainedTokenizerBase, chat_template: str | None, name: str | None) -> str:
    """The Jinja text of the template in use: ``chat_template`` if given, else the tokenizer's own. `UserError` without one."""
    if chat_template is not None:
        return chat_template
    try:
        return str(tokenizer.get_chat_template())
    except ValueError:
        remedy = (
            "name one of ours or give a .jinja file for it" if name else "put the chat_template.jinja that belongs to it there"
        )
        raise UserError(f"{subject(tokenizer, name)}: its tokenizer has no chat template; {remedy}") from None


def render(tokenizer: PreTrainedTokenizerBase, template: str, marks: list[str], who: str) -> str:
    """The text of the conversation that ``marks`` (keys of `MARKS`) make, with a generation prompt after a user message.

    Raises `UserError` that begins with ``who`` when the template fails, whatever the reason: it is a program of somebody else's.
    """
    roles = {"s": "system", "u": "user", "a": "assistant"}
    messages = [{"role": roles[mark[0]], "content": MARKS[mark]} for mark in marks]
    try:
        return str(
            tokenizer.apply_chat_template(
                messages, chat_template=template, tokenize=False, add_generation_prompt=marks[-1].startswith("user")
            )
        )
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        said = ", ".join(message["role"] for message in messages)
        raise UserError(
            f"{who}: its chat template does not render a conversation of {said}: {reason}; correct it or give another template"
        ) from None


def cut(text: str, marks: list[str], who: str) -> list[str]:
    """The texts before, between and after the marked contents: ``len(marks) + 1`` of them.

    Raises `UserError` naming the first content that is dropped, repeated or out of order.
    """
    pieces: list[str] = []
    for mark in marks:
        count = text.count(MARKS[mark]) + sum(piece.count(MARKS[mark]) for piece in pieces)
        if count != 1 or MARKS[mark] not in text:
            fault = "drops" if count == 0 else "moves" if count == 1 else "repeats"
            raise UserError(
                f"{who}: its chat template {fault} the content of the {CALLED[mark]}; correct it or give another template"
            )
        before, text = text.split(MARKS[mark])
        pieces.append(before)
    return [*pieces, text]
