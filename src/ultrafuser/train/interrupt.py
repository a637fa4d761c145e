"""No Ctrl-C is lost before training begins.

Until then Python's own handler raises KeyboardInterrupt wherever the program is, and compiled modules (while they are imported,
above all) may swallow it; and a program that a script has started in the background begins with Ctrl-C ignored. So it is
remembered here, and `StopOnInterrupt` asks before the first step. Needs no torch: it has to be in place before that is imported.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class RememberedInterrupt:
    """A signal handler that raises KeyboardInterrupt, as Python's does, and remembers that it has: ``asked``."""

    asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        raise KeyboardInterrupt


@contextlib.contextmanager
def interrupts_remembered() -> Iterator[None]:
    """While this lasts (it decorates functions too), a Ctrl-C that is swallowed still stops the next training."""
    if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
        yield
        return
    previous = signal.signal(signal.SIGINT, RememberedInterrupt())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
