"""Final answers, agreement of samples, running programs and reading scores, against cases worked out by hand."""

from __future__ import annotations

import pytest

from ultrafuser.synth.quality.agreement import agree, agreement_problem
from ultrafuser.synth.quality.final_answer import final_answer, normalise
from ultrafuser.synth.quality.programs import program_problem, program_problems, python_program
from ultrafuser.synth.quality.scoring import read_score, score_problem


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("so\n#### 1,234", "1234"),
        ("#### $18", "18"),
        ("Thus \\boxed{\\dfrac{3}{4}}.", "3/4"),
        ("\\boxed{\\text{(B)}}", "(b)"),
        ("\\boxed{x^{2} + 1}", "x^{2}+1"),
        ("first \\boxed{1}, but then \\boxed{2}", "2"),
        ("The answer is 42.", "42"),
        ("the answer is therefore 3.5 hours, which is long.", "7/2"),
        ("**Final Answer:** $x = -5$", "-5"),
        ("Answer: B", "b"),
        ("The correct answer is \\(2\\sqrt{3}\\).", "2\\sqrt{3}"),
        ("The answer is 1. Wait.\n\\boxed{7}", "7"),
        ("The answer is that nobody knows.", None),
        ("no such thing", None),
        ("\\boxed{never closed", None),
        ("#### ", None),
    ],
)
def test_final_answer(text: str, expected: str | None) -> None:
    """Catches an answer read wrongly, one found where there is none, and an earlier one taken for the last."""
    assert final_answer(text) == expected


@pytest.mark.parametrize("raw", ["0.5", "1/2", "\\frac{1}{2}", ".5", "$0.50$", "0.5 kg", "x = 1/2"])
def test_equal_answers_are_equal(raw: str) -> None:
    """Catches ways of writing one number that would split a vote."""
    assert normalise(raw) == "1/2"


def test_agreement() -> None:
    """By hand: the majority, ties to the first, samples without an answer counted as votes for none."""
    solutions = ["#### 3", "\\boxed{3.0}", "#### 4", "no answer"]
    assert (agree(solutions).answer, agree(solutions).votes, agree(solutions).share) == ("3", 2, 0.5)
    assert agree(["#### 5", "#### 6"]).answer == "5" and agree([]).share == 0 and agree(["none"]).answer is None
    assert agreement_problem("#### 3", ["#### 3", "#### 4"], 0.6) is None
    assert agreement_problem("#### 4", ["#### 3", "#### 3"], 0.6) == "no agreement: answers 4, but 2 of 3 solutions come to 3"
    assert agreement_problem("#### 3", ["#### 4", "#### 5"], 0.5) == "no agreement: only 1 of 3 solutions come to one answer"
    assert agreement_problem("hm", ["#### 3", "#### 3"], 0.5) == "no agreement: the response has no final answer"


def fenced(*codes: str) -> str:
    return "Look:\n\n" + "\n\nand\n\n".join(f"```python\n{code}\n```" for code in codes)


def test_programs() -> None:
    """Catches right programs called wrong and the other way round; blocks belong together; what the sandbox lacks is no fault."""
    answers = [
        fenced("def f(x):\n    return x + 1", "assert f(1) == 2"),
        fenced("def f(x):\n    return x + 2", "assert f(1) == 2, 'wrong'"),
        fenced("print(undefined_name)"),
        fenced("import no_such_package_at_all"),
        fenced("name = input('? ')"),
        fenced("open('data.csv')"),
        "only words",
    ]
    problems = program_problems(answers)
    assert problems[1] == "code does not run: AssertionError: wrong"
    assert problems[2] is not None and problems[2].startswith("code does not run: NameError")
    assert [problem for place, problem in enumerate(problems) if place not in (1, 2)] == [None] * 5


def test_what_is_no_program() -> None:
    """Catches sessions and fragments that would be run as programs and fail."""
    assert python_program(fenced(">>> 1 + 1\n2")) is None and python_program(fenced("if x:")) is None
    assert python_program(fenced("a = 1", "b = a")) == "a = 1\n\nb = a"
    assert program_problem("```js\nfail(\n```") is None


@pytest.mark.parametrize(
    "value", [{"score": 7, "reason": "fine"}, {"score": "7/10", "reason": "fine"}, {"score": 7.0, "reason": " fine "}]
)
def test_scores_are_read(value: object) -> None:
    """Catches scores in the forms that models give them in."""
    assert read_score(value) == (7, "fine")


@pytest.mark.parametrize(
    "value", [{}, {"score": 0}, {"score": 11}, {"score": True}, {"score": "good"}, [], {"score": None}, {"score": -3}]
)
def test_no_score(value: object) -> None:
    """Catches what is no score, or is out of range, taken for one."""
    with pytest.raises(ValueError, match="no score from 1 to 10"):
        read_score(value)


def test_low_scores_are_dropped() -> None:
    """Catches the minimum itself being dropped."""
    assert score_problem(6, "", 6) is None
    assert score_problem(5, "vague", 6) == "scored low: 5 of 10, vague"
