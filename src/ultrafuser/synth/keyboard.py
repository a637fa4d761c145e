"""What a person types: single keys on a terminal, the first letter of each line where standard input is none (a pipe, a test)."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Protocol, TextIO

from rich.console import Console


class Keyboard(Protocol):
    """Where answers come from. At the end of the input both give ``q``, or an empty text."""

    def key(self) -> str:
        """One lower-case letter."""

    def line(self, prompt: str) -> str:
        """A line of text."""


class Lines:
    """Reads lines; works with anything that has ``readline``."""

    def __init__(self, stream: TextIO, console: Console) -> None:
        self.stream, self.console = stream, console

    def key(self) -> str:
        while line := self.stream.readline():
            if line.strip():
                return line.strip()[0].lower()
        return "q"

    def line(self, prompt: str) -> str:
        self.console.print(prompt, end=" ", markup=False, highlight=False)
        line = self.stream.readline().strip()
        self.console.print()  # nobody pressed Return where this is shown
        return line


class Terminal:
    """Reads keys as they are pressed."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def key(self) -> str:
        with _cbreak():
            pressed = os.read(sys.stdin.fileno(), 1).decode(errors="replace")  # unbuffered: what follows may be for `line`
        return pressed.lower() if pressed not in ("", "\x04") else "q"  # Ctrl-D

    def line(self, prompt: str) -> str:
        with contextlib.suppress(EOFError):
            return input(f"{prompt} ").strip()
        return ""


def keyboard(console: Console) -> Keyboard:
    """That of this process. Windows has no single keys here."""
    return Terminal(console) if sys.stdin.isatty() and sys.platform != "win32" else Lines(sys.stdin, console)


@contextlib.contextmanager
def _cbreak() -> Iterator[None]:
    """Keys without Return and without an echo; Ctrl-C still interrupts, and what was typed ahead is not lost."""
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin, termios.TCSANOW)
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
