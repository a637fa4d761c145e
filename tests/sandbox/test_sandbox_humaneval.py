"""HumanEval: 164 reference solutions pass, 164 empty functions fail. Data: ``ULTRAFUSER_TEST_DATA=directory pytest ..``."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from ultrafuser.sandbox import TestedProgram, run_tests

DATA = os.environ.get("ULTRAFUSER_TEST_DATA")
pytestmark = pytest.mark.skipif(DATA is None, reason="ULTRAFUSER_TEST_DATA does not say where the data is")


def records(name: str) -> list[dict[str, Any]]:
    with gzip.open(Path(DATA or "") / "eval" / f"{name}.jsonl.gz", "rt") as file:
        return [json.loads(line) for line in file]


def passed(records: list[dict[str, Any]], sources: list[str]) -> list[str]:
    """The ids of the records whose program passes."""
    tests = [f"{record['tests']}\ncheck({record['entry_point']})" for record in records]
    verdicts = run_tests([TestedProgram(*pair) for pair in zip(sources, tests, strict=True)])
    return [record["id"] for record, verdict in zip(records, verdicts, strict=True) if verdict.passed]


def test_reference_solutions_pass(level: str) -> None:
    """Catches a solution that is right being judged wrong, at every level of isolation."""
    tasks = records("humaneval")
    assert passed(tasks, [task["prompt"] + task["response"] for task in tasks]) == [task["id"] for task in tasks]
    assert len(tasks) == 164


def test_reference_solutions_as_whole_programs_pass() -> None:
    """Catches the same with the programs that the instruction form asks for."""
    tasks = records("humaneval_instruct_derived")
    assert passed(tasks, [task["response"] for task in tasks]) == [task["id"] for task in tasks]
    assert len(tasks) == 164


def test_empty_functions_fail(level: str) -> None:
    """Catches tests that do not run, at every level of isolation."""
    tasks = records("humaneval")
    assert passed(tasks, [task["prompt"] + "    pass\n" for task in tasks]) == []
