"""AlpacaEval (paper, section 5): how often a judge prefers the model's answer to a reference model's, over 805 instructions.

Every pair is judged in both orders and its score is the mean of the two (win 1, tie 1/2, loss 0), so that a judge who always
prefers the first place gives exactly 1/2. A pair with an unreadable verdict is left out whole, since half of it would carry that
bias. Where nothing is to be judged nobody is asked: identical answers tie, an empty one loses.

Departures from the original: our own prompt, any judge, both orders instead of one drawn at random, and the win rate is not
controlled for length; the mean lengths stand beside it instead, since judges like long answers.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ultrafuser.errors import UserError
from ultrafuser.evaluate.judged.check import check_judge
from ultrafuser.evaluate.judged.extract_verdict import parse_verdict
from ultrafuser.evaluate.judged.judge import Answer, Judge, Judgement, open_judge
from ultrafuser.evaluate.judged.prompts import comparison, template
from ultrafuser.evaluate.judged.questions import load_questions
from ultrafuser.evaluate.judged.settings import JudgeSettings
from ultrafuser.evaluate.score import TaskScore, mean_and_error, prompts_hash

TASK = "alpaca_eval"
# What a verdict is worth to the model's answer where that stands as A, and where it stands as B.
WORTH = ({"A": 1.0, "tie": 0.5, "B": 0.0}, {"A": 0.0, "tie": 0.5, "B": 1.0})


@dataclass
class Pair:
    """One instruction, the two answers, and the judgements of both orders: the model's answer as A, then as B."""

    id: str
    instruction: str
    answer: str
    reference: str
    judgements: Sequence[Judgement[str]] = field(default_factory=list)

    @property
    def foregone(self) -> float | None:
        """The worth of a pair that needs no judge, else None."""
        answer, reference = self.answer.strip(), self.reference.strip()
        if answer == reference:
            return 0.5
        return 0.0 if not answer else 1.0 if not reference else None

    @property
    def worths(self) -> list[float]:
        """What the two orders said, as far as it can be read."""
        read = zip(WORTH, self.judgements, strict=False)
        return [worth[judgement.value] for worth, judgement in read if judgement.value is not None]

    @property
    def win(self) -> float | None:
        """1 if the model's answer is better, 0 if it is worse; None if an order has no verdict."""
        if self.foregone is not None:
            return self.foregone
        return sum(self.worths) / 2 if len(self.worths) == 2 else None

    @property
    def inconsistent(self) -> bool:
        """Did the verdict change with the order?"""
        return len(set(self.worths)) > 1

    def record(self) -> dict[str, Any]:
        """For results.json."""
        return {
            "id": self.id,
            "prompt": self.instruction,
            "answer": self.answer,
            "reference": self.reference,
            "win": self.win,
            "verdicts": [judgement.record() for judgement in self.judgements],
            "cost": sum(judgement.cost for judgement in self.judgements),
        }


def run_alpaca_eval(answer: Answer, settings: JudgeSettings) -> TaskScore:
    """Let a model answer AlpacaEval's instructions and a judge compare its answers with the reference model's.

    Args:
        answer: gives the answers of the model under test to a batch of message lists.
        settings: the judge, the reference and the data.

    Returns:
        The win rate, from 0 to 1; ``n`` pairs with both verdicts, ``unparsed`` pairs left out since a verdict could not be read.

    Raises:
        UserError: no such data, or the judge cannot be used (see `check_judge`, `Judge.ask`).
    """
    started = time.monotonic()
    check_judge(settings)
    pairs = _answered(answer, settings)
    with open_judge(settings) as judge:
        _judge(pairs, judge)
    wins = [pair.win for pair in pairs if pair.win is not None]
    if not wins:
        raise UserError(f"{TASK}: of no pair could both verdicts of judge {settings.model} be read; choose another --judge-model")
    value, error = mean_and_error(wins)
    return TaskScore(
        task=TASK,
        value=value,
        standard_error=error,
        n=len(wins),
        unparsed=len(pairs) - len(wins),
        seconds=time.monotonic() - started,
        records=[pair.record() for pair in pairs],
        prompts_hash=prompts_hash([template("compare"), *(pair.instruction for pair in pairs)]),
        notes=_notes(pairs, judge),
    )


def _answered(answer: Answer, settings: JudgeSettings) -> list[Pair]:
    questions = load_questions(TASK, settings)
    answers = answer([[{"role": "user", "content": question["prompt"]}] for question in questions])
    reference = f"reference_{settings.reference}"
    return [
        Pair(question["id"], question["prompt"], text, question[reference])
        for question, text in zip(questions, answers, strict=True)
    ]


def _judge(pairs: Sequence[Pair], judge: Judge) -> None:
    """Ask for both orders of every pair that needs a judge."""
    open_pairs = [pair for pair in pairs if pair.foregone is None]
    prompts = [
        comparison(pair.instruction, *answers)
        for pair in open_pairs
        for answers in ((pair.answer, pair.reference), (pair.reference, pair.answer))
    ]

    def take(judgements: Sequence[Judgement[str]]) -> None:
        for place, pair in enumerate(open_pairs):
            pair.judgements = judgements[2 * place : 2 * place + 2]

    def so_far(judgements: Sequence[Judgement[str]]) -> str:
        take(judgements)
        wins = [pair.win for pair in pairs if pair.win is not None]
        return f"{_show(wins)} over {len(wins)} of {len(pairs)} pairs"

    take(judge.ask(prompts, parse_verdict, so_far, TASK))


def _show(wins: Sequence[float]) -> str:
    if not wins:
        return "no win rate"
    value, error = mean_and_error(wins)
    return f"win rate {value:.1%} ± {error:.1%}"


def _notes(pairs: Sequence[Pair], judge: Judge) -> list[str]:
    asked = [pair for pair in pairs if len(pair.worths) == 2]
    ours = statistics.fmean(len(pair.answer) for pair in pairs)
    theirs = statistics.fmean(len(pair.reference) for pair in pairs)
    notes = [f"compared with {judge.settings.reference}; mean length {ours:,.0f} characters, the reference's {theirs:,.0f}"]
    if asked:
        share = sum(pair.inconsistent for pair in asked) / len(asked)
        notes.append(f"the verdict changed with the order of the answers in {share:.1%} of {len(asked)} pairs")
    return notes + judge.notes([judgement for pair in pairs for judgement in pair.judgements])
