"""`ultrafuser synth review`: look at topics and samples, and accept, edit or reject them (the paper checked both by hand).

Topics come first, a main topic before its sub-topics, then samples of every sub-topic, those with the lowest scores first. What
has been decided before is not shown again. Each decision is kept at once, and carried out by the next `ultrafuser synth run`.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console

from ultrafuser.endpoints.store import AnswerStore
from ultrafuser.errors import UserError
from ultrafuser.synth.edit import edited
from ultrafuser.synth.keyboard import Keyboard
from ultrafuser.synth.record import Action, Decision, Item, Topic
from ultrafuser.synth.review_view import show_help, show_item, show_keys, show_topic
from ultrafuser.synth.state import State

Subject = Topic | Item
SAMPLES = 3  # per sub-topic
UNSCORED = 99


def review(store: Path, keyboard: Keyboard, console: Console, *, samples: int = SAMPLES, below: str = "") -> Counter[str]:
    """Go through the synthesis in the file ``store``; returns how often each action was taken and not undone.

    ``samples`` items of every sub-topic are shown; ``below`` restricts all to a domain or main topic, such as ``code/003``.
    Raises `UserError` if the store is in use or has no such topic.
    """
    with AnswerStore(store) as opened:
        state = State(opened)
        if below and not any(topic.id == below for topic in state.topics() if topic.level != "sub_topic"):
            raise UserError(f"'{below}' is no domain or main topic of {store}; the report shows their ids")
        return Review(state, keyboard, console, samples, below).run()


@dataclass(frozen=True)
class Step:
    """A decision that can be undone: what it was about, and what was decided before."""

    subject: Subject
    action: str
    before: Decision | None


class Review:
    """One sitting."""

    def __init__(self, state: State, keyboard: Keyboard, console: Console, samples: int, below: str) -> None:
        self.state, self.keyboard, self.console = state, keyboard, console
        self.samples, self.below = samples, below
        self.decided = state.decisions()
        self.gone: set[str] = set()  # ids of rejected topics
        self.taken: list[Step] = []
        self.again: list[Subject] = []  # to be shown next, the last first
        self.skipped: set[str] = set()  # ids
        self.topics_done = self.over = False

    def run(self) -> Counter[str]:
        """Until everything was shown, or the person has enough."""
        self.subjects = self._subjects()
        while not self.over and (subject := self.again.pop() if self.again else next(self.subjects, None)):
            self._ask(subject)
        return Counter(step.action for step in self.taken)

    # -- what is shown

    def _subjects(self) -> Iterator[Subject]:
        """Everything that is neither skipped nor decided, directly or by the rejection of a topic above it."""
        topics = [topic for topic in self.state.topics(below=self.below) if topic.parent]
        self.gone |= {topic.id for topic in topics if self._rejected(topic)}
        for topic in topics:
            if not self.topics_done and self._open(topic):
                yield topic
        for topic in topics:
            if topic.level == "sub_topic" and topic.id not in self.gone:
                yield from filter(self._open, self._sample(topic))

    def _open(self, subject: Subject) -> bool:
        above = [subject.id[:at] for at, sign in enumerate(subject.id) if sign == "/"]
        return subject.key not in self.decided and subject.id not in self.skipped and self.gone.isdisjoint(above)

    def _rejected(self, topic: Topic) -> bool:
        return topic.key in self.decided and self.decided[topic.key].action == "reject"

    def _sample(self, topic: Topic) -> list[Item]:
        """Those with the lowest scores; of equals, and where nothing was scored, by the hash of the id."""
        items = self.state.items("accepted", below=topic.id)
        return heapq.nsmallest(self.samples, items, key=lambda item: (score_of(item), hashlib.sha256(item.id.encode()).digest()))

    # -- what is done

    def _ask(self, subject: Subject) -> None:
        if isinstance(subject, Topic):
            show_topic(self.console, subject)
        else:
            show_item(self.console, subject)
        show_keys(self.console, topics=isinstance(subject, Topic))
        while (act := ACTIONS.get(self.keyboard.key())) is None:
            show_help(self.console)
        act(self, subject)

    def accept(self, subject: Subject) -> None:
        self._decide(subject, "accept")

    def reject(self, subject: Subject) -> None:
        self._decide(subject, "reject", note=self.keyboard.line("Why? (Return: no reason)"))

    def edit(self, subject: Subject) -> None:
        names = ("name", "why", "use") if isinstance(subject, Topic) else ("instruction", "response")
        if isinstance(subject, Item) and subject.further:
            self.console.print("a change of either text drops the turns after the first response")
        changed = edited({name: getattr(subject, name) or "" for name in names}, self.keyboard)
        if changed:
            self._decide(subject, "edit", text=changed)
        else:
            self.console.print("nothing was changed")
            self.again.append(subject)

    def undo(self, subject: Subject) -> None:
        self.again.append(subject)
        if not self.taken:
            self.console.print("nothing to undo")
            return
        step = self.taken.pop()
        self.again.append(step.subject)
        if step.before:
            self._keep(step.before)
        else:
            self.state.forget(step.subject.key)
            self.decided.pop(step.subject.key)
        if step.subject.id in self.gone:  # what is below it was passed over
            self.gone.remove(step.subject.id)
            self.again, self.subjects = [step.subject], self._subjects()

    def skip(self, subject: Subject) -> None:
        self.skipped.add(subject.id)

    def samples_now(self, subject: Subject) -> None:
        self.topics_done = True

    def quit(self, subject: Subject) -> None:
        self.over = True

    def _decide(self, subject: Subject, action: Action, *, text: dict[str, str] | None = None, note: str = "") -> None:
        kind: Literal["topic", "item"] = "topic" if isinstance(subject, Topic) else "item"
        self.taken.append(Step(subject, action, self.decided.get(subject.key)))
        self._keep(Decision(subject.key, kind, action, text or {}, note))
        if action == "reject":
            self.gone.add(subject.id)

    def _keep(self, decision: Decision) -> None:
        self.state.decide(decision)
        self.decided[decision.key] = decision


ACTIONS: Mapping[str, Callable[[Review, Subject], None]] = {
    "a": Review.accept,
    "e": Review.edit,
    "r": Review.reject,
    "s": Review.skip,
    "u": Review.undo,
    "n": Review.samples_now,
    "q": Review.quit,
}


def score_of(item: Item) -> int:
    """The score that a model gave it, or one above all scores."""
    return int(item.provenance.get("score", {}).get("score", UNSCORED))
