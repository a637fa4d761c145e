"""Answers to requests, from the store or from endpoints: what synthesis and judges use.

    with AnswerStore("answers.sqlite") as store:
        engine = LocalEngine(models, store, budget=5.0)
        answers = engine.answer([ChatRequest("judge", ({"role": "user", "content": "Which is better?"},))])

Answers are committed at the end of the turn of the event loop in which their last byte was read, all of a turn in one
transaction. So a kill can only lose what arrived within the last milliseconds, and never an answer that was handed out.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from ultrafuser.endpoints.batch import Batch
from ultrafuser.endpoints.budget import Budget
from ultrafuser.endpoints.dispatch import Dispatcher
from ultrafuser.endpoints.line import Patience
from ultrafuser.endpoints.models import Models
from ultrafuser.endpoints.pool import Pool
from ultrafuser.endpoints.progress import Progress
from ultrafuser.endpoints.request import ChatAnswer, ChatRequest
from ultrafuser.endpoints.store import AnswerStore

PROGRESS_SECONDS = 0.25
CONCURRENCY = 256
T = TypeVar("T")


class Engine(Protocol):
    """Whatever answers requests."""

    def answer(self, requests: Sequence[ChatRequest]) -> list[ChatAnswer]:
        """The answers in the order of ``requests``; answered ones come from the store and are not asked again.

        A request that is refused (too long, say) or keeps failing while others are answered gets an answer that `failed`; it is
        not kept as final. Raises `UserError` (one line) when an endpoint refuses the key or the model, all endpoints of a model
        are down, or the disk is full, and its kind `BudgetReached` at the spending cap: each after everything that was on its
        way has been stored, so the same call goes on.
        """
        ...


class LocalEngine:
    """Asks from this process; async inside, blocking outside.

    Args:
        models: the models by the names that requests use.
        store: where requests and answers are kept.
        budget: the most that all answers of the store may cost, in USD; None: no cap.
        concurrency: requests on their way at once, over all endpoints.
        progress: called four times a second and at the end.
        patience: with failing endpoints.

    Raises `UserError` if the environment variable of a key is not set. Ctrl-C stops sending and stores what is on its way
    before `KeyboardInterrupt` is raised; a second Ctrl-C does not wait.
    """

    def __init__(
        self,
        models: Models,
        store: AnswerStore,
        *,
        budget: float | None = None,
        concurrency: int = CONCURRENCY,
        progress: Callable[[Progress], None] | None = None,
        patience: Patience | None = None,
    ):
        self.models, self.store, self.concurrency, self.progress = models, store, concurrency, progress
        self.pools = {name: Pool(model, patience or Patience()) for name, model in models.items()}
        self.budget = Budget(budget, store.spent())

    def answer(self, requests: Sequence[ChatRequest]) -> list[ChatAnswer]:
        """See `Engine.answer`."""
        batch = Batch(requests, self.models, self.store)
        if batch.missing:
            run_blocking(self._ask(batch))
        if self.progress:
            self.progress(batch.progress(self.budget.spent))
        return batch.in_order()

    async def _ask(self, batch: Batch) -> None:
        dispatcher = Dispatcher(self.pools, self.budget, self.concurrency, batch.keep)
        reporting = asyncio.ensure_future(self._report(batch, dispatcher))
        try:
            with _on_interrupt(dispatcher.interrupt):
                await dispatcher.run(batch.missing)
        finally:
            reporting.cancel()

    async def _report(self, batch: Batch, dispatcher: Dispatcher) -> None:
        while self.progress:
            self.progress(batch.progress(self.budget.spent, dispatcher.in_flight, dispatcher.note))
            await asyncio.sleep(PROGRESS_SECONDS)


def run_blocking(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` to its end, also where an event loop runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


@contextlib.contextmanager
def _on_interrupt(react: Callable[[], None]) -> Iterator[None]:
    """Call ``react`` on Ctrl-C, where that is possible: in the main thread, not on Windows."""
    loop = asyncio.get_running_loop()
    try:
        loop.add_signal_handler(signal.SIGINT, react)
    except (NotImplementedError, RuntimeError, ValueError):
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
