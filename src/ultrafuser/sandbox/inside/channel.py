"""Messages between the process of a program and the process of its tests."""

from __future__ import annotations

import os

from . import values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def meet(reader: int, writer: int) -> None:
    """Wait for the other process's supervisor, so that no program's time runs out while the other one is still starting."""
    try:
        os.write(writer, b".")
    except BrokenPipeError:
        return  # it has ended; the first message will find that out
    os.read(reader, 1)


class Channel:
    """Whole values over two pipes. Where the other end is gone, raises EOFError or BrokenPipeError."""

    def __init__(self, reader: int, writer: int) -> None:
        self.reader, self.writer = os.fdopen(reader, "rb"), writer

    def send(self, value: Any, refer: Callable[[Any], int | None]) -> None:
        """Raises before anything is sent if the value cannot be sent."""
        content = values.encode(value, refer)
        content = b"%d\n%s" % (len(content), content)
        while content:
            content = content[os.write(self.writer, content) :]

    def receive(self) -> bytes:
        """The next message, still to be decoded."""
        line = self.reader.readline(20)
        if not line:
            raise EOFError
        content = self.reader.read(int(line))
        if len(content) < int(line):
            raise EOFError
        return content
