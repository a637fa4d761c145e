"""Asks the judge: every verdict is kept at once, an unreadable one is asked for again, a reached budget says how far it got.

The judge samples at temperature 0 (at its own where the endpoint takes none). A verdict that cannot be read is asked for again
at `AGAIN_TEMPERATURE` (at 0 the same would come back), up to `ATTEMPTS` times in all, then it counts as unread. A judge that
gives nothing readable to the first `TRIAL` questions ends the task, before everything is spent on babble.

The budget is a cap on what all verdicts in the store cost, earlier runs' too. When it is reached the task fails with one line
that holds the numbers so far, marked partial: a number of some of the questions must not stand in a table beside numbers of all.
The same command with a larger budget goes on and asks for nothing twice.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ultrafuser.endpoints.budget import BudgetReached
from ultrafuser.endpoints.engine import Engine, LocalEngine
from ultrafuser.endpoints.models import Model
from ultrafuser.endpoints.progress import show_progress
from ultrafuser.endpoints.request import ChatAnswer, ChatRequest, Message
from ultrafuser.endpoints.store import AnswerStore
from ultrafuser.errors import UserError, plural
from ultrafuser.evaluate.judged.prompts import JudgePrompt
from ultrafuser.evaluate.judged.settings import JudgeSettings

ATTEMPTS = 3
TRIAL = 10
AGAIN_TEMPERATURE = 0.7
MAX_TOKENS = 2048
GREETING: tuple[Message, ...] = ({"role": "user", "content": "Are you there? Answer with yes."},)
GREETING_STEP = "greeting"
T = TypeVar("T")
Answer = Callable[[list[list[Message]]], list[str]]  # the model under test: its answers to a batch of message lists


@dataclass
class Judgement(Generic[T]):
    """What came of one question to the judge: the verdict (None: none that can be read) and all that was said, by attempt."""

    value: T | None = None
    heard: list[ChatAnswer] = field(default_factory=list)

    def hear(self, answer: ChatAnswer | None, parse: Callable[[str], T | None]) -> bool:
        """Take in what was said (None: nothing is known yet); True if it makes sense to ask again."""
        if answer is None:
            return False
        self.heard.append(answer)
        self.value = None if answer.failed else parse(answer.text)
        # What the endpoint refused (a prompt too long for the judge, say) it would refuse again.
        return self.value is None and not answer.failed

    @property
    def refusal(self) -> str:
        """Why the endpoint refused to answer; empty if it did not."""
        return self.heard[-1].finish_reason if self.heard and self.heard[-1].failed else ""

    @property
    def cost(self) -> float:
        """USD for all attempts."""
        return sum(answer.cost for answer in self.heard)

    def record(self) -> dict[str, Any]:
        """For results.json."""
        last = self.heard[-1]
        return {
            "verdict": self.value,
            "said": self.refusal or last.text,
            "judge": last.model,
            "endpoint": last.endpoint,
            "attempts": len(self.heard),
            "cost": self.cost,
        }


class Judge:
    """A model that judges, with the store of what it has said."""

    def __init__(self, engine: Engine, store: AnswerStore, settings: JudgeSettings) -> None:
        self.engine, self.store, self.settings = engine, store, settings

    def require_answer(self) -> None:
        """Ask something short, unless this URL has answered before; the answer is kept, and its cost counted, as all others are.

        Raises `UserError` when the judge cannot be reached or refuses.
        """
        known = self.store.endpoints(self.settings.model)
        if self.settings.endpoint.base_url in known:
            return
        request = self._request(JudgePrompt(GREETING, None), len(known), GREETING_STEP)  # of each URL another attempt
        (answer,) = self.engine.answer([request])
        if answer.failed:
            why = _shortened(answer.finish_reason)
            raise UserError(f"judge {self.settings.base_url}: refuses any question ({why}); check --judge-url and --judge-model")

    def ask(
        self,
        prompts: Sequence[JudgePrompt],
        parse: Callable[[str], T | None],
        so_far: Callable[[Sequence[Judgement[T]]], str],
        step: str,
    ) -> list[Judgement[T]]:
        """Judge ``prompts``; the judgements come in their order.

        Args:
            prompts: what to ask.
            parse: reads a verdict, None if it cannot.
            so_far: one phrase about the judgements that there are, for the message about a reached budget.
            step: the task, for accounting.

        Raises:
            UserError: the judge cannot be reached, refuses or says nothing readable; `BudgetReached` for its budget.
        """
        try:
            trial = self._settle(prompts[:TRIAL], parse, step, self.engine.answer)
            self._require_sense(trial)
            return [*trial, *self._settle(prompts[TRIAL:], parse, step, self.engine.answer)]
        except BudgetReached as error:
            kept = self._settle(prompts, parse, step, self._kept)
            raise BudgetReached(f"{error} (--judge-budget). Partial, so far: {so_far(kept)}") from None

    def notes(self, judgements: Sequence[Judgement[Any]]) -> list[str]:
        """Sentences about who judged, at what cost, and what could not be read, for the reader of a score."""
        heard = [answer for judgement in judgements for answer in judgement.heard]
        names = sorted({answer.model for answer in heard if answer.model}) or [self.settings.model]
        cost = f"{sum(answer.cost for answer in heard):.4f} USD" if any(self.settings.prices) else "no price given"
        notes = [f"judged by {', '.join(names)}: {plural(len(judgements), 'verdict')} ({cost})"]
        refusals = [judgement.refusal for judgement in judgements if judgement.refusal]
        if unread := sum(judgement.value is None for judgement in judgements) - len(refusals):
            notes.append(f"{plural(unread, 'verdict')} left out: not readable in {ATTEMPTS} attempts")
        if refusals:
            notes.append(f"{plural(len(refusals), 'verdict')} left out: refused by the endpoint ({_shortened(refusals[0])})")
        return notes

    def _settle(
        self,
        prompts: Sequence[JudgePrompt],
        parse: Callable[[str], T | None],
        step: str,
        answer: Callable[[Sequence[ChatRequest]], Sequence[ChatAnswer | None]],
    ) -> list[Judgement[T]]:
        """Ask until every verdict can be read or its attempts are used up; ``answer`` gives None for what it does not know."""
        judgements = [Judgement[T]() for _ in prompts]
        unsettled = list(zip(prompts, judgements, strict=True))
        for attempt in range(ATTEMPTS):
            if unsettled:
                said = answer([self._request(prompt, attempt, step) for prompt, _ in unsettled])
                unsettled = [one for one, text in zip(unsettled, said, strict=True) if one[1].hear(text, parse)]
        return judgements

    def _request(self, prompt: JudgePrompt, attempt: int, step: str) -> ChatRequest:
        return ChatRequest(
            model=self.settings.model,
            messages=prompt.messages,
            step=step,
            temperature=AGAIN_TEMPERATURE if attempt else 0.0,
            max_tokens=MAX_TOKENS,
            seed=self.settings.seed + attempt,
            schema=prompt.schema,
            attempt=attempt,
        )

    def _kept(self, requests: Sequence[ChatRequest]) -> list[ChatAnswer | None]:
        kept = self.store.get_many([request.key for request in requests])
        return [kept.get(request.key) for request in requests]

    def _require_sense(self, judgements: Sequence[Judgement[Any]]) -> None:
        """Raise `UserError` if not one verdict could be read."""
        if judgements and all(judgement.value is None for judgement in judgements):
            said = _shortened(judgements[-1].refusal or judgements[-1].heard[-1].text)
            what = f"gave no verdict that can be read on the first {len(judgements)} questions; it said {said!r}"
            raise UserError(f"judge {self.settings.model} ({self.settings.base_url}): {what}; choose another --judge-model")


def _shortened(text: str) -> str:
    return textwrap.shorten(text, 120, placeholder=" ..")


@contextmanager
def open_judge(settings: JudgeSettings) -> Iterator[Judge]:
    """The judge with its store open and its progress shown on stderr."""
    models = {settings.model: Model(endpoints=(settings.endpoint,))}
    with AnswerStore(settings.store) as store, show_progress() as progress:
        engine = LocalEngine(models, store, budget=settings.budget, progress=progress, patience=settings.patience)
        yield Judge(engine, store, settings)
