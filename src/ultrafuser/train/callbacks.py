"""What goes along with the Trainer's loop: the progress bar, the stop on Ctrl-C."""

from __future__ import annotations

import math
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text
from transformers import TrainerCallback

from ultrafuser.train.interrupt import RememberedInterrupt
from ultrafuser.train.processes import any_process

LINES, SECONDS = 10, 60.0  # in a file: so many lines a stage, and one where the last is so old


class WithNews(Progress):
    """A bar with each task's news below it: beside it they would leave it no room."""

    def get_renderables(self) -> Iterator[RenderableType]:
        """What is shown."""
        yield from super().get_renderables()
        yield from (Text(task.fields["news"]) for task in self.tasks if task.fields["news"])


class ProgressBar(TrainerCallback):
    """One bar per stage on stderr, with the newest loss, loss and gate weights per domain, and speed.

    Where stderr is no terminal, as in a cluster's logs: now and then a line.
    """

    def __init__(self, title: str):
        self.title = title
        self.bar: Progress | None = None
        self.told_step, self.told_at = 0, -math.inf

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        counters = (BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self.bar = WithNews(TextColumn("{task.description}"), *counters, console=Console(stderr=True), refresh_per_second=2)
        self.task = self.bar.add_task(self.title, total=state.max_steps, completed=state.global_step, news="")
        self.bar.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar:
            self.bar.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if not (self.bar and logs and "tokens_per_second" in logs):
            return
        if self.bar.console.is_terminal:
            self.bar.update(self.task, news="\n".join([headline(logs), *gate_lines(logs)]))
        elif (
            state.global_step >= min(self.told_step + state.max_steps / LINES, state.max_steps)
            or time.monotonic() > self.told_at + SECONDS
        ):
            self.told_step, self.told_at = state.global_step, time.monotonic()
            print(f"{self.title}: step {state.global_step} of {state.max_steps}: {headline(logs)}", file=sys.stderr, flush=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.close()

    def close(self) -> None:
        """Put the terminal back as it was; safe to call twice."""
        if self.bar:
            self.bar.stop()
            self.bar = None


def headline(logs: dict[str, float]) -> str:
    """A log line for the bar: ``loss 1.23 (code 0.98, text 1.50)  entropy 0.71  1,234 tok/s``."""
    parts = [f"{key.removeprefix('loss/')} {value:.3f}" for key, value in logs.items() if key.startswith("loss/")]
    entropy = f"  entropy {logs['gate_entropy']:.2f}" if "gate_entropy" in logs else ""
    return f"loss {logs['loss']:.3f} ({', '.join(parts)}){entropy}  {logs['tokens_per_second']:,.0f} tok/s"


def gate_lines(logs: dict[str, float]) -> list[str]:
    """Mean gate weights, a line a domain: ``  code: text 0.02, code 0.95, math 0.03``."""
    rows: dict[str, list[str]] = {}
    for key, value in logs.items():
        if key.startswith("gate/"):
            domain, _, name = key.removeprefix("gate/").rpartition("/")
            rows.setdefault(domain, []).append(f"{name} {value:.2f}")
    return [f"  {domain}: {', '.join(row)}" for domain, row in rows.items()]


class StopOnInterrupt(TrainerCallback):
    """On the first Ctrl-C finish the step, save and stop; on the second stop at once, as Python does.

    One that was remembered (`interrupts_remembered`) counts: it was swallowed on its way, or this would not have been reached.
    A context manager: the signal handler is in place inside the ``with`` block only.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> StopOnInterrupt:
        self.previous: Any = None
        if threading.current_thread() is threading.main_thread():
            self.previous = signal.signal(signal.SIGINT, self._ask)
            if isinstance(self.previous, RememberedInterrupt) and self.previous.asked:
                self.asked = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.previous is not None:
            signal.signal(signal.SIGINT, self.previous)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if any_process(self.asked, args.device):
            control.should_save = control.should_training_stop = True


class LogBeforeSaving(TrainerCallback):
    """A checkpoint is always preceded by a log line, so that no window of metrics spans an interruption."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if control.should_save:
            control.should_log = True
