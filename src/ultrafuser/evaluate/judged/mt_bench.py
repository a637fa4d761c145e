"""MT-Bench (paper, section 5): marks from 1 to 10 that a judge gives to each of two turns of 80 conversations.

The model answers the first turn, then the second with its own first answer before it. Each turn is graded on its own (the second
with the first in sight), in math, coding and reasoning against a reference answer. The score is the mean over all marks; its
standard error takes the question as the independent unit. An empty answer gets the lowest mark, and nobody is asked.

The official grading prompts are used where the data directory holds them (``mt_bench_judge_prompts``), else our own. Departures
from the original: answers are decoded as for all other tasks (there: at a temperature for each category), and of several marks in
one verdict the last counts.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ultrafuser.endpoints.request import Message
from ultrafuser.evaluate.judged.check import check_judge
from ultrafuser.evaluate.judged.extract_verdict import LOWEST, parse_rating
from ultrafuser.evaluate.judged.judge import Answer, Judge, Judgement, open_judge
from ultrafuser.evaluate.judged.prompts import JudgePrompt, grading, template
from ultrafuser.evaluate.judged.questions import load_official_prompts, load_questions
from ultrafuser.evaluate.judged.settings import JudgeSettings
from ultrafuser.evaluate.score import TaskScore, prompts_hash
from ultrafuser.intervals import ratio_error

TASK = "mt_bench"
TURNS = 2
WITH_REFERENCE = ("math", "coding", "reasoning")  # elsewhere a reference is at best one of many good answers


@dataclass
class Chat:
    """One question: what the user says, what the model answered, and the judgement of each turn."""

    id: str
    category: str
    turns: Sequence[str]
    references: Sequence[str]
    answers: list[str] = field(default_factory=list)
    judgements: dict[int, Judgement[float]] = field(default_factory=dict)  # by turn; none for an empty answer

    @property
    def marks(self) -> list[float | None]:
        """The mark of each turn, None where there is none that can be read."""
        return [self._mark(turn) for turn in range(TURNS)]

    def _mark(self, turn: int) -> float | None:
        if not self.answers[turn].strip():
            return float(LOWEST)
        return self.judgements[turn].value if turn in self.judgements else None

    def messages(self) -> list[Message]:
        """The conversation up to the first turn that has no answer yet."""
        said: list[Message] = []
        for turn, text in zip(self.turns, self.answers, strict=False):
            said += [{"role": "user", "content": turn}, {"role": "assistant", "content": text}]
        return [*said, {"role": "user", "content": self.turns[len(self.answers)]}]

    def prompt(self, turn: int, official: Mapping[str, Mapping[str, str]]) -> JudgePrompt:
        """What the judge is asked about one turn."""
        seen = slice(turn + 1)
        return grading(self.turns[seen], self.answers[seen], self.references[seen], official)

    def record(self) -> dict[str, Any]:
        """For results.json."""
        return {
            "id": self.id,
            "category": self.category,
            "prompt": list(self.turns),
            "answer": self.answers,
            "reference": list(self.references),
            "marks": self.marks,
            "verdicts": [{"turn": turn + 1, **judgement.record()} for turn, judgement in self.judgements.items()],
            "cost": sum(judgement.cost for judgement in self.judgements.values()),
        }


def run_mt_bench(answer: Answer, settings: JudgeSettings) -> TaskScore:
    """Let a model answer MT-Bench's two turns and a judge grade each answer from 1 to 10.

    Args:
        answer: gives the answers of the model under test to a batch of message lists; it is called once for each turn.
        settings: the judge and the data.

    Returns:
        The mean mark; ``n`` questions have a mark, ``unparsed`` lack one, or one of their two, since it could not be read.

    Raises:
        UserError: no such data, or the judge cannot be used (see `check_judge`, `Judge.ask`).
    """
    started = time.monotonic()
    check_judge(settings)
    official = load_official_prompts(settings.data_dir)
    chats = [_chat(question) for question in load_questions(TASK, settings)]
    for _ in range(TURNS):
        for chat, text in zip(chats, answer([chat.messages() for chat in chats]), strict=True):
            chat.answers.append(text)
    with open_judge(settings) as judge:
        _judge(chats, judge, official)
    value, error = _mean(chats)
    wordings: list[Any] = list(official.values()) or [template("grade")]
    return TaskScore(
        task=TASK,
        value=value,
        standard_error=error,
        n=sum(any(mark is not None for mark in chat.marks) for chat in chats),
        unparsed=sum(None in chat.marks for chat in chats),
        seconds=time.monotonic() - started,
        records=[chat.record() for chat in chats],
        prompts_hash=prompts_hash([*wordings, *(chat.turns for chat in chats)]),
        notes=_notes(chats, judge, bool(official)),
    )


def _chat(question: Mapping[str, Any]) -> Chat:
    # The newer references correct mistakes of the older ones.
    references = question.get("reference_gpt4_0125") or question["reference"] or []
    wanted = question["category"] in WITH_REFERENCE
    return Chat(question["id"], question["category"], question["turns"], references if wanted else [])


def _judge(chats: Sequence[Chat], judge: Judge, official: Mapping[str, Mapping[str, str]]) -> None:
    """Ask for a mark of every turn that has an answer."""
    asked = [(chat, turn) for chat in chats for turn in range(TURNS) if chat.answers[turn].strip()]

    def take(judgements: Sequence[Judgement[float]]) -> None:
        for (chat, turn), judgement in zip(asked, judgements, strict=True):
            chat.judgements[turn] = judgement

    def so_far(judgements: Sequence[Judgement[float]]) -> str:
        take(judgements)
        marks = sum(mark is not None for chat in chats for mark in chat.marks)
        mean, error = _mean(chats)
        spread = "" if math.isnan(error) else f" ± {error:.2f}"  # none of a single question
        return f"mean mark {mean:.2f}{spread} over {marks} of {TURNS * len(chats)} answers"

    take(judge.ask([chat.prompt(turn, official) for chat, turn in asked], parse_rating, so_far, TASK))


def _mean(chats: Sequence[Chat], turns: Sequence[int] = range(TURNS)) -> tuple[float, float]:
    """Mean mark and its standard error, the question being the independent unit; NaN without any mark."""
    marks = [[mark for turn in turns if (mark := chat.marks[turn]) is not None] for chat in chats]
    graded = [some for some in marks if some]
    return ratio_error([sum(some) for some in graded], [len(some) for some in graded]) if graded else (math.nan, math.nan)


def _notes(chats: Sequence[Chat], judge: Judge, official: bool) -> list[str]:
    by_turn = [f"turn {turn + 1}: {_mean(chats, [turn])[0]:.2f}" for turn in range(TURNS)]
    categories = dict.fromkeys(chat.category for chat in chats)
    by_category = [f"{name}: {_mean([chat for chat in chats if chat.category == name])[0]:.2f}" for name in sorted(categories)]
    length = statistics.fmean(len(text) for chat in chats for text in chat.answers)
    return [
        f"graded with {'the official' if official else 'our own'} prompts; mean length {length:,.0f} characters",
        ", ".join(by_turn),
        ", ".join(by_category),
        *judge.notes([judgement for chat in chats for judgement in chat.judgements.values()]),
    ]
