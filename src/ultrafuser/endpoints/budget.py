"""A spending cap that holds: what is on its way is counted with the most that it can cost."""

from __future__ import annotations

from ultrafuser.endpoints.models import Model
from ultrafuser.endpoints.request import ChatRequest
from ultrafuser.errors import UserError

UNLIMITED_ANSWER = 1024  # tokens to reckon with for an answer whose length is not limited; a longer one may pass the cap


def most_tokens(request: ChatRequest, model: Model) -> int:
    """Of an answer, to reckon with."""
    return request.max_tokens or model.max_tokens or UNLIMITED_ANSWER


class BudgetReached(UserError):
    """The cap leaves no room for another request; all answers are kept, and the same command goes on with a larger cap."""


class Budget:
    """``cap`` in USD (None: no cap) for all answers of a store, of earlier runs too, which ``spent`` is for."""

    def __init__(self, cap: float | None, spent: float):
        self.cap, self.spent, self.reserved = cap, spent, 0.0

    def affords(self, most: float) -> bool:
        """Is there room for a request that costs at most ``most``?"""
        return self.cap is None or most == 0 or self.spent + self.reserved + most <= self.cap

    def reserve(self, most: float) -> None:
        """A request is being sent."""
        self.reserved += most

    def settle(self, most: float, cost: float) -> None:
        """A request has come back, with or without an answer."""
        self.reserved = max(0.0, self.reserved - most)
        self.spent += cost

    def reached(self) -> BudgetReached:
        """The error to stop with."""
        return BudgetReached(
            f"the spending cap of ${self.cap:,.2f} leaves no room for another request (${self.spent:,.4f} spent); "
            "every answer is kept: give a larger budget and the same command goes on"
        )
