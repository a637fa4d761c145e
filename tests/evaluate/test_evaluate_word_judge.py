"""The judge that counts words (tests/word_judge.py), with which the small models' judged benchmarks were run."""

from __future__ import annotations

import pytest

from ultrafuser.evaluate.judged.extract_verdict import parse_rating, parse_verdict
from ultrafuser.evaluate.judged.prompts import JudgePrompt, comparison, grading
from word_judge import judge

OFFICIAL = {  # the layout of MT-Bench's own prompts
    "single-v1": {
        "system_prompt": "Be fair.",
        "prompt": "[Instruction]\nRate it: [[5]].\n\n[Question]\n{question}\n\n"
        "[The Start of Assistant's Answer]\n{answer}\n[The End of Assistant's Answer]",
    },
    "single-v1-multi-turn": {
        "system_prompt": "Be fair: [[5]].",
        "prompt": "<|The Start|>\n\n### User:\n{question_1}\n\n### Assistant A:\n{answer_1}\n\n### User:\n{question_2}\n\n"
        "### Assistant A:\n{answer_2}\n\n<|The End of Assistant A's Conversation with User|>",
    },
}


def said(prompt: JudgePrompt) -> str:
    return judge({"messages": list(prompt.messages)}, 0)


@pytest.mark.parametrize(("first", "second", "verdict"), [("a b", "a", "A"), ("x", "c b", "B"), ("a", "b", "tie")])
def test_better_answer_repeats_more(first, second, verdict):
    """The places of the answers mixed up, or the instruction counted as one of them."""
    assert parse_verdict(said(comparison("a b c", first, second))) == verdict


@pytest.mark.parametrize("official", [{}, OFFICIAL])
@pytest.mark.parametrize(
    ("turns", "answers", "rating"),
    [(["a b c"], ["a b c"], 10), (["a b c"], [""], 1), (["a b c", "d e f"], ["d", "d"], 4), (["a b", "c"], ["a b", "x"], 1)],
)
def test_mark_is_share_of_the_last_question(turns, answers, rating, official):
    """A mark of the wrong turn, or of a prompt whose parts were not found."""
    assert parse_rating(said(grading(turns, answers, [], official))) == rating
