"""Rate limits as endpoints report them in their headers: wait for the next window instead of running into a 429.

x-ratelimit-limit-requests: 500     x-ratelimit-remaining-requests: 12     x-ratelimit-reset-requests: 6m0s
the same for -tokens                retry-after: 20 (or a date)            retry-after-ms: 20000
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Literal

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = r"(\d+(?:\.\d+)?)(ms|[dhms])"

ON_THE_WAY = 1.0  # seconds after which a request has come in at the endpoint, which then looks at its clock

Headers = Mapping[str, str]


def seconds_in(text: str) -> float | None:
    """Seconds in "20", "1.5s", "6m0s" or "20ms"; None for anything else."""
    text = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not re.fullmatch(f"({_PART})+", text):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in re.findall(_PART, text))


def retry_after(headers: Headers) -> float | None:
    """How many seconds an endpoint asks to wait; None if it does not say."""
    if (milliseconds := seconds_in(headers.get("retry-after-ms", ""))) is not None:
        return milliseconds / 1000
    text = headers.get("retry-after", "")
    if (seconds := seconds_in(text)) is not None:
        return seconds
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    now = datetime.now(timezone.utc)
    return max(0.0, ((date if date.tzinfo else date.replace(tzinfo=timezone.utc)) - now).total_seconds())


@dataclass(frozen=True)
class Ticket:
    """A request as a limit counts it: its amount, all that had been sent when it was, and when."""

    amount: float
    total: float
    at: float


class Allowance:
    """What one limit, of requests or of tokens, still leaves; as long as no header says anything it leaves all."""

    def __init__(self, kind: Literal["requests", "tokens"]):
        self.kind = kind
        self.limit: float | None = None
        self.left: float | None = None  # none: not known
        self.resets_at: float | None = None  # none: that has been, and no answer has come back since
        self.total = self.on_the_way = 0.0
        self.newest = 0.0  # `Ticket.total` of the latest request whose headers are known

    def wait(self, amount: float, now: float) -> float:
        """Seconds until ``amount`` may be sent; infinite while only an answer that is on its way can tell."""
        if self.left is None or self.left >= amount:
            return 0.0
        if self.resets_at is not None:
            if now < self.resets_at:
                return self.resets_at - now
            self.resets_at, self.left = None, None if self.limit is None else self.limit - self.on_the_way
            if self.left is None or self.left >= amount:
                return 0.0
        return math.inf if self.on_the_way else 0.0

    def sent(self, amount: float, now: float) -> Ticket:
        """Take out ``amount`` for a request that is being sent."""
        self.total += amount
        self.on_the_way += amount
        if self.left is not None:
            self.left -= amount
        return Ticket(amount, self.total, now)

    def back(self, ticket: Ticket, headers: Headers, now: float) -> None:
        """Learn from the headers of an answer. They tell of the moment when its request came in, so what was sent since is taken
        off, and those of a request older than the newest that is known tell nothing."""
        self.on_the_way = max(0.0, self.on_the_way - ticket.amount)
        remaining = seconds_in(headers.get(f"x-ratelimit-remaining-{self.kind}", ""))
        reset = seconds_in(headers.get(f"x-ratelimit-reset-{self.kind}", ""))
        if remaining is None or reset is None or ticket.total < self.newest:
            return
        self.limit = seconds_in(headers.get(f"x-ratelimit-limit-{self.kind}", "")) or self.limit
        self.left = remaining - (self.total - ticket.total)
        self.resets_at, self.newest = min(ticket.at + ON_THE_WAY, now) + reset, ticket.total
