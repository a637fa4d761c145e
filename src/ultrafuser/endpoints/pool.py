"""Endpoints of one model and the requests that wait for them: which is next, and where it goes (issue part "Any endpoint")."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from ultrafuser.endpoints.budget import most_tokens
from ultrafuser.endpoints.line import Line, Patience
from ultrafuser.endpoints.models import Model
from ultrafuser.endpoints.protocol import prompt_tokens
from ultrafuser.endpoints.request import ChatRequest


@dataclass(order=True)
class Job:
    """A request on its way to an answer; the order is that of being tried again."""

    ready_at: float
    request: ChatRequest = field(compare=False)
    prompt_tokens: int = field(compare=False)
    most_tokens: int = field(compare=False)  # of the answer
    tries: int = field(default=0, compare=False)
    first_sent: float = field(default=math.inf, compare=False)

    @property
    def tokens(self) -> int:
        """What it takes of a limit on tokens, at most."""
        return self.prompt_tokens + self.most_tokens

    def most(self, line: Line) -> float:
        """USD that it costs there, at most."""
        return line.endpoint.cost(self.prompt_tokens, self.most_tokens)


class Pool:
    """The endpoints of one model, and the requests that wait for them: fresh ones first, then those to be tried again."""

    def __init__(self, model: Model, patience: Patience):
        self.model, self.patience = model, patience
        self.lines = [Line(endpoint, patience) for endpoint in model.endpoints]
        self.fresh: deque[Job] = deque()
        self.again: list[Job] = []

    def begin(self, requests: Sequence[ChatRequest]) -> None:
        """Take in the requests of a run."""
        self.again.clear()
        for line in self.lines:
            line.reopen()
        self.fresh = deque(self._job(request) for request in requests)

    def _job(self, request: ChatRequest) -> Job:
        return Job(0.0, request, prompt_tokens(request), most_tokens(request, self.model))

    def first(self, now: float) -> Job | None:
        """The request whose turn it is, left where it is."""
        if self.fresh:
            return self.fresh[0]
        return self.again[0] if self.again and self.again[0].ready_at <= now else None

    def take(self) -> None:
        """Take out what `first` returned."""
        if self.fresh:
            self.fresh.popleft()
        else:
            heapq.heappop(self.again)

    def wait(self, now: float) -> float:
        """Seconds until something may be sent: 0 now, infinite if only a reply can change that."""
        job = self.first(now)
        if job is None:
            return self.again[0].ready_at - now if self.again else math.inf
        return min(line.wait(job.tokens, now) for line in self.lines)

    def choose(self, job: Job, now: float) -> Line:
        """Smooth weighted round-robin over the endpoints that are free: one that is not hands its share to the others."""
        free = [line for line in self.lines if line.wait(job.tokens, now) <= 0]
        for line in free:
            line.credit += line.endpoint.weight
        chosen = max(free, key=lambda line: line.credit)
        chosen.credit -= sum(line.endpoint.weight for line in free)
        return chosen

    def put_back(self, job: Job, seconds: float, now: float) -> None:
        """Try ``job`` again in so many seconds, after all fresh ones."""
        job.ready_at = now + seconds
        heapq.heappush(self.again, job)

    def is_to_blame(self, job: Job) -> bool:
        """Has ``job`` been tried often enough, while others were answered?"""
        return job.tries >= self.patience.tries and any(line.answered_at > job.first_sent for line in self.lines)

    @property
    def waiting(self) -> bool:
        """Are there requests to send?"""
        return bool(self.fresh or self.again)

    @property
    def closed(self) -> bool:
        """Is there no endpoint left to ask?"""
        return all(line.closed for line in self.lines)
