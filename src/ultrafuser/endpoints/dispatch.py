"""Shares requests out over endpoints: bounded concurrency, retries, rate limits, a spending cap (issue part "Any endpoint").

Everything happens in `Dispatcher._pump`, which starts whatever may be started now; it is called when something has come back
or a wait is over. Whatever goes wrong in the end lets what is on its way come back first: it is paid for.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from ultrafuser.endpoints.budget import Budget
from ultrafuser.endpoints.client import ask, new_session
from ultrafuser.endpoints.limits import Headers
from ultrafuser.endpoints.line import Line, Sent
from ultrafuser.endpoints.pool import Job, Pool
from ultrafuser.endpoints.protocol import Completion, Failure
from ultrafuser.endpoints.request import ChatAnswer, ChatRequest
from ultrafuser.errors import UserError


class Dispatcher:
    """One run over a list of requests; it knows of no store.

    Args:
        pools: the endpoints of every model, by the names that requests use.
        budget: the spending cap.
        concurrency: requests on their way at once, over all endpoints.
        deliver: gets the answers that came in during one turn of the event loop, at its end; also the failed ones.
    """

    def __init__(self, pools: Mapping[str, Pool], budget: Budget, concurrency: int, deliver: Callable[[list[ChatAnswer]], None]):
        self.pools, self.budget, self.concurrency, self.deliver = pools, budget, concurrency, deliver
        self.in_flight = 0
        self.note = ""  # what went wrong last
        self._arrived: list[ChatAnswer] = []
        self._turns = deque(pools.values())
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._error: BaseException | None = None

    async def run(self, requests: Sequence[ChatRequest]) -> None:
        """Ask for all ``requests``. Raises what ended the run early, after all that was on its way has been delivered."""
        for name, pool in self.pools.items():
            pool.begin([request for request in requests if request.model == name])
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        async with new_session() as self._session:
            try:
                self._pump()
                await self._over
            finally:
                await self._wind_up()
        if self._error:
            raise self._error

    def stop(self, error: BaseException) -> None:
        """Send nothing more; `run` raises ``error`` when all that is on its way has come back. The first error counts."""
        self._error = self._error or error
        self._pump()

    def interrupt(self) -> None:
        """For Ctrl-C: the first stops, the second drops what is on its way."""
        if self._error is None:
            self.stop(KeyboardInterrupt())
            self.note = "stopping when all answers that are on their way have come (Ctrl-C again drops them)"
            return
        self._error = KeyboardInterrupt()
        for task in self._tasks:
            task.cancel()

    async def _wind_up(self) -> None:
        if self._timer:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # -- what to start, and when to look again

    def _pump(self) -> None:
        if self._over.done():
            return
        now = self._loop.time()
        while self._error is None and self.in_flight < self.concurrency and self._start_one(now):
            pass
        if self.in_flight == 0 and not self._arrived and (self._error or not any(pool.waiting for pool in self.pools.values())):
            self._over.set_result(None)
        elif self._error is None and self.in_flight < self.concurrency:
            self._look_again(min(pool.wait(now) for pool in self.pools.values()))

    def _start_one(self, now: float) -> bool:
        """Start a request of the model whose turn it is; False if none of any model can be."""
        for _ in self.pools:
            pool = self._turns[0]
            self._turns.rotate(-1)
            if pool.wait(now) <= 0 and (job := pool.first(now)) and self._start(pool, job, now):
                return True
        return False

    def _start(self, pool: Pool, job: Job, now: float) -> bool:
        line = pool.choose(job, now)
        if not self.budget.affords(job.most(line)):
            if self.in_flight == 0:  # else what comes back will have cost less than the most it could
                self._error = self.budget.reached()
            return False
        pool.take()
        self.budget.reserve(job.most(line))
        job.first_sent = min(job.first_sent, now)
        self.in_flight += 1
        task = self._loop.create_task(self._work(pool, line, job, line.send(job.tokens, now)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return True

    def _look_again(self, seconds: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, self._pump) if 0 < seconds < math.inf else None

    # -- one request

    async def _work(self, pool: Pool, line: Line, job: Job, sent: Sent) -> None:
        headers: Headers = {}
        cost = 0.0
        try:
            result, headers = await ask(self._session, line, job.request, pool.model)
            if isinstance(result, Completion):
                cost = self._answered(line, job, result, sent)
            else:
                self._failed(pool, line, job, result, sent)
        except Exception as error:  # a fault of ours must not leave the run waiting for ever
            self._error = self._error or error
        finally:
            self.in_flight -= 1
            line.back(sent, headers, self._loop.time())
            self.budget.settle(job.most(line), cost)
            self._pump()

    def _arrive(self, answer: ChatAnswer) -> None:
        if not self._arrived:
            self._loop.call_soon(self._hand_over)
        self._arrived.append(answer)

    def _hand_over(self) -> None:
        arrived, self._arrived = self._arrived, []
        try:
            self.deliver(arrived)
        except Exception as error:  # such as a full disk
            self._error = self._error or error
        self._pump()

    def _answered(self, line: Line, job: Job, result: Completion, sent: Sent) -> float:
        """Hand the answer on; returns its cost."""
        line.answered(self._loop.time())
        self.note = ""
        answer = ChatAnswer(
            key=job.request.key,
            text=result.text,
            finish_reason=result.finish_reason,
            prompt_tokens=result.prompt_tokens,
            completion_tokens=result.completion_tokens,
            cost=line.endpoint.cost(result.prompt_tokens, result.completion_tokens),
            model=result.model,
            endpoint=line.endpoint.base_url,
            seconds=self._loop.time() - sent.at,
        )
        self._arrive(answer)
        return answer.cost

    def _failed(self, pool: Pool, line: Line, job: Job, failure: Failure, sent: Sent) -> None:
        """Try again, give the request up, or stop, by whose fault it is."""
        now = self._loop.time()
        line.failed(failure, sent, now)
        self.note = f"{line.endpoint.base_url} {failure}"
        job.tries += failure.kind == "transient"
        if failure.kind == "request":
            self._give_up(line, job, str(failure))
        elif pool.is_to_blame(job):
            self._give_up(line, job, f"{failure}, {job.tries} times")
        else:
            pool.put_back(job, max(failure.wait or 0.0, pool.patience.wait(job.tries)) if job.tries else 0.0, now)
        if pool.closed or line.misconfigured:
            self._error = self._error or UserError(f"{line.endpoint.base_url}: {line.closed}")

    def _give_up(self, line: Line, job: Job, reason: str) -> None:
        self._arrive(ChatAnswer(job.request.key, "", f"error: {reason}", endpoint=line.endpoint.base_url))
