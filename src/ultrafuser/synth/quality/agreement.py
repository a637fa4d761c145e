"""Is a worked solution right? Several samples that come to one answer say so better than a judge (self-consistency)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ultrafuser.synth.quality.final_answer import final_answer


@dataclass(frozen=True)
class Agreement:
    """The answer that most samples come to, None if none has one, and how many of them do."""

    answer: str | None
    votes: int
    samples: int

    @property
    def share(self) -> float:
        return self.votes / self.samples if self.samples else 0.0


def agree(solutions: Sequence[str]) -> Agreement:
    """Count the final answers of ``solutions``; a solution without one votes for none. Of equals the first one wins."""
    votes = Counter(answer for text in solutions if (answer := final_answer(text)) is not None)
    answer, count = votes.most_common(1)[0] if votes else (None, 0)
    return Agreement(answer, count, len(solutions))


def agreement_problem(response: str, samples: Sequence[str], share: float) -> str | None:
    """Why ``response`` cannot be trusted, or None.

    Args:
        response: the solution that would be kept; it is one of the votes.
        samples: other solutions of the same problem.
        share: of all solutions, that must come to the same answer.
    """
    agreed, own = agree([response, *samples]), final_answer(response)
    if own is None:
        return "no agreement: the response has no final answer"
    if agreed.share < share:
        return f"no agreement: only {agreed.votes} of {agreed.samples} solutions come to one answer"
    if own != agreed.answer:
        return f"no agreement: answers {own}, but {agreed.votes} of {agreed.samples} solutions come to {agreed.answer}"
    return None
