"""`ultrafuser chat`: a conversation in the terminal. The model keeps the whole of it; when it is too long, it begins later."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape

from ultrafuser.errors import UserError, did_you_mean
from ultrafuser.run.generate import Decoding, encode, room_for, say

COMMANDS = {"/quit": "end", "/reset": "forget what was said", "/help": "this"}


def chat(model: Any, tokenizer: Any, decoding: Decoding, *, system: str | None = None) -> None:
    """Read questions and answer them until ``/quit`` or the end of input; Ctrl-C stops an answer, at the prompt it ends the chat.

    Raises `UserError` for a model without a chat template.
    """
    if not tokenizer.chat_template:
        raise UserError("this model has no chat template; use 'ultrafuser generate', or give it a chat_template.jinja")
    console = Console(stderr=True)
    console.print(f"[dim]{escape(_help())}[/dim]", highlight=False)
    opening = [] if system is None else [{"role": "system", "content": system}]
    history = list(opening)
    while (command := (question := _read(console)).strip()) != "/quit":
        if command == "/reset":
            history = list(opening)
        elif command.startswith("/"):
            near = "" if command == "/help" else did_you_mean(command, COMMANDS)
            console.print(f"[dim]{escape(_help() + near)}[/dim]", highlight=False)
        elif command:
            history = _exchange(model, tokenizer, decoding, [*history, {"role": "user", "content": question}], console)


def _help() -> str:
    return "  ".join(f"{command} {what}" for command, what in COMMANDS.items())


def _read(console: Console) -> str:
    try:
        console.print("\n[bold]>[/bold] ", end="")
        return input()
    except EOFError:
        return "/quit"


def _exchange(
    model: Any, tokenizer: Any, decoding: Decoding, messages: list[dict[str, str]], console: Console
) -> list[dict[str, str]]:
    """Answer the last message; return the conversation with the answer, or without the message if it cannot be answered."""
    try:
        kept = _fit(model, tokenizer, decoding, messages)
        if len(kept) < len(messages):
            console.print(f"[dim]({len(messages) - len(kept)} earlier messages no longer fit and are forgotten)[/dim]")
        said = say(model, tokenizer, kept, decoding)
    except UserError as error:
        console.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        return messages[:-1]
    return [*kept, {"role": "assistant", "content": said.text.strip() or "…"}]


def _fit(model: Any, tokenizer: Any, decoding: Decoding, messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """``messages`` without as many of the earliest exchanges as must go so that the answer fits."""
    first = int(messages[0]["role"] == "system")
    while len(messages) > first + 2 and len(encode(tokenizer, messages)) > room_for(model, decoding):
        messages = [*messages[:first], *messages[first + 2 :]]
    return messages
