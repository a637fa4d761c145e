"""A model's grade of a conversation, from 1 to 10: how it is read. The prompt is ``score.jinja``, the form `steps.score`'s."""

from __future__ import annotations

from typing import Any

LOWEST, HIGHEST = 1, 10


def read_score(value: Any) -> tuple[int, str]:
    """The score and the reason in what a model answered, parsed. Raises `ValueError` if there is no score in range."""
    fields = value if isinstance(value, dict) else {"score": value}
    raw = fields.get("score")
    text = str(raw).partition("/")[0].strip()  # "8/10"
    if isinstance(raw, bool) or not text.replace(".0", "").isdecimal() or not LOWEST <= int(float(text)) <= HIGHEST:
        raise ValueError(f"no score from {LOWEST} to {HIGHEST}")
    return int(float(text)), str(fields.get("reason") or "").strip()


def score_problem(score: int, reason: str, minimum: int) -> str | None:
    """Why a conversation with that score is dropped, or None."""
    return None if score >= minimum else f"scored low: {score} of {HIGHEST}, {reason or 'no reason given'}"
