"""How far a batch of requests has come, and one line on stderr that says so."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.markup import escape
from rich.status import Status

PLAIN_SECONDS = 30.0  # between two lines where stderr is not a terminal


@dataclass(frozen=True)
class Progress:
    """Of one call of `Engine.answer`; ``cost`` in USD is the whole store's, ``note`` says what is being waited for."""

    step: str
    done: int  # answered, those from the store included
    total: int
    from_store: int = 0
    in_flight: int = 0
    requests_per_second: float = 0.0
    cost: float = 0.0
    seconds_left: float | None = None
    note: str = ""

    @property
    def line(self) -> str:
        """``instructions 1,200/3,000 (40%)  51.2/s  $0.31  0:35 left``"""
        share = self.done / self.total if self.total else 1.0
        parts = [f"{self.step or 'requests'} {self.done:,}/{self.total:,} ({share:.0%})"]
        parts += [f"{self.from_store:,} from the store"] if self.from_store else []
        parts += [f"{self.requests_per_second:.1f}/s"] if self.requests_per_second else []
        parts += [f"${self.cost:,.2f}"] if self.cost else []
        parts += [f"{duration(self.seconds_left)} left"] if self.seconds_left and self.done < self.total else []
        return "  ".join(parts + ([self.note] if self.note else []))


class Speed:
    """Requests per second over the last ten seconds or so."""

    def __init__(self, samples: int = 40):
        self._samples: deque[tuple[float, int]] = deque(maxlen=samples)

    def at(self, done: int) -> float:
        """Note that ``done`` requests are done now; returns the speed."""
        self._samples.append((time.monotonic(), done))
        seconds, more = (last - first for first, last in zip(self._samples[0], self._samples[-1], strict=True))
        return more / seconds if seconds else 0.0


def duration(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    minutes, hours = int(seconds) // 60, int(seconds) // 3600
    return f"{hours}:{minutes % 60:02}:{int(seconds) % 60:02}" if hours else f"{minutes}:{int(seconds) % 60:02}"


@contextmanager
def show_progress(console: Console | None = None) -> Iterator[Callable[[Progress], None]]:
    """Yield what an engine's ``progress`` wants: one line per step on stderr, in place on a terminal, else now and then."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield _PlainLines(console)
        return
    with console.status("") as status:
        lines = _LiveLines(console, status)
        try:
            yield lines
        finally:
            lines.keep()


class _PlainLines:
    """A line when all is done and every `PLAIN_SECONDS`."""

    def __init__(self, console: Console):
        self._console, self._shown, self._time = console, "", time.monotonic()

    def __call__(self, progress: Progress) -> None:
        due = progress.done == progress.total or time.monotonic() - self._time >= PLAIN_SECONDS
        if due and progress.line != self._shown:
            self._console.print(progress.line, markup=False, highlight=False, soft_wrap=True)
            self._shown, self._time = progress.line, time.monotonic()


class _LiveLines:
    """The line of the running step changes in place; that of a finished step stays above it."""

    def __init__(self, console: Console, status: Status):
        self._console, self._status = console, status
        self._last: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        if self._last and self._last.step != progress.step:
            self.keep()
        self._last = progress
        self._status.update(escape(progress.line))

    def keep(self) -> None:
        """Leave the newest line where it is."""
        if self._last:
            self._console.print(self._last.line, markup=False, highlight=False)
        self._last = None
