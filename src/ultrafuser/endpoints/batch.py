"""One call of an engine: what the store knows already, what must be asked, what has come in."""

from __future__ import annotations

from collections.abc import Sequence

from ultrafuser.endpoints.models import Models, find_model
from ultrafuser.endpoints.progress import Progress, Speed
from ultrafuser.endpoints.request import ChatAnswer, ChatRequest
from ultrafuser.endpoints.store import AnswerStore


class Batch:
    """Requests and their answers so far; what will be asked is recorded at once. Raises `UserError` for an unknown model."""

    def __init__(self, requests: Sequence[ChatRequest], models: Models, store: AnswerStore):
        for name in dict.fromkeys(request.model for request in requests):
            find_model(models, name)
        if store.connection.in_transaction:  # what comes in would wait in it uncommitted
            raise RuntimeError("an engine cannot be asked inside store.transaction()")
        self.requests, self.store = requests, store
        by_key = {request.key: request for request in requests}
        self.answers = store.get_many(list(by_key))
        self.missing = [request for key, request in by_key.items() if key not in self.answers]
        self.total, self.from_store = len(by_key), len(self.answers)
        self._speed = Speed()
        if self.missing:
            store.require_room()
            store.add_requests(self.missing)

    def keep(self, answers: Sequence[ChatAnswer]) -> None:
        """Commit answers, then have them; then stop if the disk may soon be too full for those on their way."""
        self.store.add_answers(answers)
        self.answers.update((answer.key, answer) for answer in answers)
        self.store.require_room()

    def in_order(self) -> list[ChatAnswer]:
        """The answers, when all have come."""
        return [self.answers[request.key] for request in self.requests]

    def progress(self, cost: float, in_flight: int = 0, note: str = "") -> Progress:
        """How far it is; ``cost`` in USD is the store's."""
        speed = self._speed.at(len(self.answers))
        return Progress(
            step=self.requests[0].step if self.requests else "",
            done=len(self.answers),
            total=self.total,
            from_store=self.from_store,
            in_flight=in_flight,
            requests_per_second=speed,
            cost=cost,
            seconds_left=(self.total - len(self.answers)) / speed if speed else None,
            note=note,
        )
