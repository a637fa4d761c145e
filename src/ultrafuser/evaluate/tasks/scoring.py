"""From answers to verdicts: the filters and metrics that the generative tasks name in their YAML files.

A filter sees the answers to all questions of a task at once, so that programs run in parallel and one process compares all
formulas. It turns each into a verdict, ``{"answer": what was read or None, "right": bool, ..}``, which the harness keeps in its
per-sample records (``filtered_resps``). The metrics then only look at the verdict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ultrafuser.endpoints.thoughts import without_thoughts
from ultrafuser.evaluate.extract import read_math, read_number
from ultrafuser.evaluate.extract_letter import read_letter
from ultrafuser.evaluate.extract_program import read_program
from ultrafuser.evaluate.python_code import future_first
from ultrafuser.evaluate.tasks.equal import equal_answers
from ultrafuser.sandbox import TestedProgram, run_tests

Doc = Mapping[str, Any]
Verdict = dict[str, Any]


def _filter(
    read: Callable[[str, Doc], str | None], judge: Callable[[list[str], list[Doc]], Sequence[Mapping[str, Any]]]
) -> Callable[[Sequence[Sequence[str]], Sequence[Doc]], list[Verdict]]:
    """A harness filter: ``read`` an answer out of each text after its thoughts, then ``judge`` those found, all at once."""

    def apply(responses: Sequence[Sequence[str]], docs: Sequence[Doc]) -> list[Verdict]:
        verdicts: list[Verdict] = [
            {"answer": read(without_thoughts(texts[0]), doc), "right": False} for texts, doc in zip(responses, docs, strict=True)
        ]
        found = [(verdict, doc) for verdict, doc in zip(verdicts, docs, strict=True) if verdict["answer"] is not None]
        judged = judge([verdict["answer"] for verdict, _ in found], [doc for _, doc in found]) if found else []
        for (verdict, _), outcome in zip(found, judged, strict=True):
            verdict.update(outcome)
        return verdicts

    return apply


def _same_number(answers: list[str], docs: list[Doc]) -> list[Verdict]:
    return [{"right": answer == read_number(doc["answer"])} for answer, doc in zip(answers, docs, strict=True)]


def _same_letter(answers: list[str], docs: list[Doc]) -> list[Verdict]:
    return [{"right": answer == doc["label"]} for answer, doc in zip(answers, docs, strict=True)]


def _same_value(answers: list[str], docs: list[Doc]) -> list[Verdict]:
    pairs = [(doc["answer"], answer) for answer, doc in zip(answers, docs, strict=True)]
    return [{"right": equal} for equal in equal_answers(pairs)]


def _passes_tests(answers: list[str], docs: list[Doc]) -> list[Verdict]:
    """Run the programs against their tests in the sandbox. Imports and helpers that came with the question are put before."""
    whole = [future_first(f"{doc['context']}\n\n{answer}") for answer, doc in zip(answers, docs, strict=True)]
    programs = [TestedProgram(code, _tests(doc)) for code, doc in zip(whole, docs, strict=True)]
    return [{"right": outcome.passed, "reason": outcome.reason} for outcome in run_tests(programs, progress=True)]


def _tests(doc: Doc) -> str:
    """MBPP's tests are assertions; HumanEval's define ``check``, which is then called."""
    called = "" if doc.get("test_list") else f"\n\ncheck({doc['entry_point']})\n"
    return f"{doc['tests']}{called}"


numbers = _filter(lambda text, doc: read_number(text), _same_number)
letters = _filter(lambda text, doc: read_letter(text, "".join(doc["choice_labels"])), _same_letter)
formulas = _filter(lambda text, doc: read_math(text), _same_value)
programs = _filter(lambda text, doc: read_program(text, doc["entry_point"], doc["completion_prefix"]), _passes_tests)


def accuracy(doc: Doc, results: Sequence[Verdict]) -> dict[str, float]:
    """The harness metrics of one question: ``acc``, and 1 for ``unparsed`` if no answer was found in the text."""
    return {"acc": float(results[0]["right"]), "unparsed": float(results[0]["answer"] is None)}


def pass_at_1(doc: Doc, results: Sequence[Verdict]) -> dict[str, float]:
    """As `accuracy`, under the name that the share of programs that pass their tests usually has."""
    scores = accuracy(doc, results)
    return {"pass_at_1": scores["acc"], "unparsed": scores["unparsed"]}
