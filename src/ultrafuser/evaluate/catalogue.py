"""Which tasks there are: what each asks, how an answer is read, which figure is the score, and where it stands in the paper.

Three kinds. "harness" tasks are definitions for lm-evaluation-harness in `tasks/`, where they are called ``ultrafuser_NAME`` so
that they never hide one of its own; "judged" tasks need a judge (`judged/`); "miniworld" tasks are those of the generated world.
This file is only a table: it needs no torch and no harness.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ultrafuser.sandbox import Programs

PREFIX = "ultrafuser_"


@dataclass(frozen=True)
class TaskInfo:
    """One task.

    Args:
        name: what the command line calls it.
        title: what tables call it.
        kind: "harness", "judged" or "miniworld": who runs it.
        test_set: name in `testsets.TEST_SETS`; None for the miniworld.
        metric: the figure that is the score; of a harness task, its metric there (which counts ``unparsed`` beside it).
        extraction: how an answer is read, in one sentence for the reader of the score.
        paper_column: its column in the paper's table, if the paper reports it; chain of thought there is "NAME, CoT".
        has_cot: there is a variant ``NAME_cot`` that asks for a chain of thought.
        programs: what runs in the sandbox to judge an answer: "full" programs, "restricted" ones, or None: nothing.
        percent: the metric is a share, shown as a percentage; False for MT-Bench's grades from 1 to 10.
    """

    name: str
    title: str
    kind: Literal["harness", "judged", "miniworld"]
    test_set: str | None
    metric: str
    extraction: str
    paper_column: str | None = None
    has_cot: bool = False
    programs: Programs | None = None
    percent: bool = True

    @property
    def harness_name(self) -> str:
        """The name of its definition in lm-evaluation-harness."""
        return PREFIX + self.name


# A model's thoughts, <think>..</think>, are put aside before any of these is applied.
NUMBER = (
    "The number after the last ####, else in the last \\boxed{}, else right after the last 'answer is' or 'answer:' if no '=' "
    "comes later, else the last number."
)
MATH_ANSWER = (
    "What the last \\boxed{} holds, or else what follows the last 'answer is' or 'answer:'; equal values count, however they are "
    "written."
)
LETTER = (
    "The letter in \\boxed{} or declared ('the answer is B'), else one that begins the answer, is alone on a line, ends a "
    "conclusion ('So B.') or begins the last line, else the only one named."
)
PROGRAM = (
    "The first fenced block that defines the function (stubs last), else bare code or a function body, without what follows but "
    "with what it needs, run against the tests in the sandbox."
)
FIRST_WORD = (
    "Each option is judged alone: the first 'yes' or 'no' in the answer; an option without either is judged wrongly, and is one "
    "unreadable answer."
)
LAST_WORD = FIRST_WORD.replace("the first", "the last")
LIKELIHOOD = "Nothing is generated: the options are compared by their likelihood as the answer."
VERDICT = (
    "A judge model reads the answers; its last verdict in the form asked for counts; an unreadable one is asked for up to 3 "
    "times, then left out."
)
EXACT = "The whole answer must be right by the task's exact checker."


def _harness() -> Iterator[TaskInfo]:
    yield TaskInfo("truthfulqa", "TruthfulQA", "harness", "truthfulqa", "judged", FIRST_WORD, "TruthfulQA", has_cot=True)
    yield TaskInfo("truthfulqa_mc2", "TruthfulQA MC2, likelihood", "harness", "truthfulqa", "mc2", LIKELIHOOD)
    yield TaskInfo(
        "humaneval", "HumanEval", "harness", "humaneval", "pass_at_1", PROGRAM, "HumanEval", has_cot=True, programs="full"
    )
    yield TaskInfo("mbpp", "MBPP", "harness", "mbpp", "pass_at_1", PROGRAM, has_cot=True, programs="full")
    yield TaskInfo("gsm8k", "GSM8K", "harness", "gsm8k", "acc", NUMBER, "GSM8K", has_cot=True)
    yield TaskInfo("math", "MATH", "harness", "math", "acc", MATH_ANSWER, "MATH", has_cot=True)
    for name, title in (("sat_math", "SAT-Math"), ("aqua", "AQuA")):
        yield TaskInfo(name, title, "harness", name, "acc", LETTER, title, has_cot=True)
        yield TaskInfo(f"{name}_likelihood", f"{title}, likelihood", "harness", name, "acc", LIKELIHOOD)


MINIWORLD: Mapping[str, Programs | None] = {"text": None, "code": "restricted", "math": None, "mixed": "restricted"}
IN_PAPER_WITH_COT = ("math", "sat_math", "aqua")


def _with_cot(task: TaskInfo) -> TaskInfo:
    column = f"{task.paper_column}, CoT" if task.name in IN_PAPER_WITH_COT else None
    rule = LAST_WORD if task.extraction == FIRST_WORD else task.extraction
    return replace(task, name=f"{task.name}_cot", title=f"{task.title}, CoT", extraction=rule, paper_column=column, has_cot=False)


def _all() -> Iterator[TaskInfo]:
    for task in _harness():
        yield task
        if task.has_cot:
            yield _with_cot(task)
    yield TaskInfo("alpaca_eval", "AlpacaEval", "judged", "alpaca_eval", "win_rate", VERDICT, "AlpacaEval")
    yield TaskInfo("mt_bench", "MT-Bench", "judged", "mt_bench", "grade", VERDICT, "MT-Bench", percent=False)
    for domain, programs in MINIWORLD.items():
        yield TaskInfo(f"miniworld_{domain}", f"miniworld {domain}", "miniworld", None, "accuracy", EXACT, programs=programs)


TASKS: Mapping[str, TaskInfo] = {task.name: task for task in _all()}
