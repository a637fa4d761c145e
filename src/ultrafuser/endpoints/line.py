"""One endpoint in the service of one model: what it may be sent now, and what its replies teach about it.

An endpoint is first asked one request at a time; once it has answered, the others follow. So a wrong key costs one request, and
limits and dialect are known before they matter. The same holds for one that comes back after it was down.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from ultrafuser.endpoints.limits import Allowance, Headers, Ticket
from ultrafuser.endpoints.models import Endpoint
from ultrafuser.endpoints.protocol import Dialect, Failure

LONGEST_HOLD = 900.0  # seconds; an endpoint that asks for more is done with for this run
DOWN_AFTER = 3  # failures in a row
OUT_OF_MONEY = 402
REFUSALS = 20  # of requests one after another by an endpoint that never answered one


@dataclass(frozen=True)
class Patience:
    """With failures: tries of a request or an endpoint, and seconds of the first wait, which doubles, and the longest."""

    tries: int = 8
    first_wait: float = 1.0
    longest_wait: float = 60.0

    def wait(self, failures: int) -> float:
        """Seconds to wait after so many failures: exponential, with a jitter so that not all come back at once."""
        return float(min(self.longest_wait, self.first_wait * 2 ** min(failures - 1, 30)) * random.uniform(0.5, 1.0))


@dataclass(frozen=True)
class Sent:
    """A request on its way, as the line's limits count it."""

    at: float
    requests: Ticket
    tokens: Ticket


@dataclass
class Line:
    """The state of an endpoint; all times are those of the event loop."""

    endpoint: Endpoint
    patience: Patience
    key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.key = self.endpoint.api_key()
        self.dialect = Dialect(structured=self.endpoint.structured_output != "off")
        self.requests, self.tokens = Allowance("requests"), Allowance("tokens")
        self.in_flight = 0
        self.credit = 0.0  # of the smooth weighted round-robin
        self.reopen()

    def reopen(self) -> None:
        """Forget what went wrong, for a new run."""
        self.proven = False  # has it answered since it was last down?
        self.closed = ""  # why it is not asked any more
        self.misconfigured = False  # closed by something that only the user can mend
        self.hold_until = 0.0
        self.failures = self.limited = self.refusals = 0  # in a row
        self.failed_at = self.answered_at = -math.inf

    @property
    def ever_answered(self) -> bool:
        """In this run."""
        return self.answered_at > -math.inf

    def wait(self, tokens: float, now: float) -> float:
        """Seconds until it may be sent a request of so many tokens; infinite while only a reply can change that."""
        if self.closed or self.in_flight >= (self.endpoint.max_concurrency if self.proven else 1):
            return math.inf
        return max(self.hold_until - now, self.requests.wait(1, now), self.tokens.wait(tokens, now), 0.0)

    def send(self, tokens: float, now: float) -> Sent:
        """Count a request that is being sent."""
        self.in_flight += 1
        return Sent(now, self.requests.sent(1, now), self.tokens.sent(tokens, now))

    def back(self, sent: Sent, headers: Headers, now: float) -> None:
        """Count a request that has come back, whatever with."""
        self.in_flight -= 1
        self.requests.back(sent.requests, headers, now)
        self.tokens.back(sent.tokens, headers, now)

    def answered(self, now: float) -> None:
        """It has answered: it is up, and what it understands is known."""
        self.proven, self.answered_at = True, now
        self.failures = self.limited = self.refusals = 0

    def failed(self, failure: Failure, sent: Sent, now: float) -> None:
        """Learn from a failure. Of many requests that fail together only one counts: those sent after the last one that did."""
        if failure.kind == "request":
            self.refusals += 1
            if not self.ever_answered and self.refusals >= REFUSALS:
                self._close(f"refuses every request: {failure}")
        elif failure.kind == "endpoint":
            self.misconfigured = failure.status != OUT_OF_MONEY
            self._close(f"{failure}; {self._advice(failure.status)}")
        elif failure.kind == "limited":
            self._held(failure, sent, now)
        elif sent.at >= self.failed_at:
            self._down(failure, now)

    def _close(self, reason: str) -> None:
        self.closed = self.closed or reason

    def _advice(self, status: int) -> str:
        if status == OUT_OF_MONEY:
            return "fill up the account and the same command goes on"
        if status in (401, 403) and not self.key:
            return "name the environment variable that holds a key (api_key_env; eval: --judge-key-env)"
        if status in (401, 403):
            return f"check the key in the environment variable {self.endpoint.api_key_env}"
        return f"check base_url (eval: --judge-url), which mostly ends in /v1, and model '{self.endpoint.model}'"

    def _held(self, failure: Failure, sent: Sent, now: float) -> None:
        if sent.at >= self.hold_until:
            self.limited += 1
        wait = self.patience.wait(self.limited or 1) if failure.wait is None else failure.wait
        self.hold_until = max(self.hold_until, now + wait)
        if wait > LONGEST_HOLD or self.limited > 2 * self.patience.tries:
            self._close(f"its rate limit asks to wait {wait:,.0f} s: {failure}")

    def _down(self, failure: Failure, now: float) -> None:
        self.failures, self.failed_at = self.failures + 1, now
        if self.failures >= self.patience.tries / (1 if self.ever_answered else 2):  # a wrong address is noticed soon
            self._close(f"{failure}, {self.failures} times in a row; see to it and the same command goes on")
        if not self.proven or self.failures >= DOWN_AFTER:
            self.proven = False
            self.hold_until = now + max(self.patience.wait(self.failures), min(failure.wait or 0.0, LONGEST_HOLD))
