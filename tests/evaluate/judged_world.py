"""Test data for the judges: tiny benchmarks in a local directory, models, and judges whose verdicts can be worked out by hand.

The quality of an answer is a number that stands in it, so a fair judge is one that compares numbers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fake_endpoint import FakeEndpoint
from ultrafuser.endpoints.line import Patience
from ultrafuser.evaluate.judged.settings import JudgeSettings

REFERENCE_QUALITY = 5
CATEGORIES = ("writing", "math", "coding", "reasoning")
Messages = Sequence[dict[str, str]]


def quality_of(text: str) -> int:
    return int(re.findall(r"quality (\d+)", text)[-1])


def between(text: str, before: str, after: str) -> str:
    return text.split(before)[-1].split(after)[0]


def write_jsonl(path: Path, records: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def write_alpaca_eval(folder: Path, count: int) -> None:
    """Instructions "question i", the reference's answers all of one quality."""
    references = ("reference_text_davinci_003", "reference_gpt4_1106_preview")
    records = [
        {"id": f"a-{i}", "prompt": f"question {i}", **{name: f"{name} {i}, quality {REFERENCE_QUALITY}" for name in references}}
        for i in range(count)
    ]
    write_jsonl(folder / "eval" / "alpaca_eval.jsonl", records)


def write_mt_bench(folder: Path, count: int) -> None:
    """Two turns "question i turn t", the categories in turn, each with a reference answer "right i turn t"."""
    records = [
        {
            "id": f"m-{i}",
            "turns": [f"question {i} turn {turn}" for turn in (1, 2)],
            "category": CATEGORIES[i % len(CATEGORIES)],
            "reference": [f"right {i} turn {turn}" for turn in (1, 2)],
        }
        for i in range(count)
    ]
    write_jsonl(folder / "eval" / "mt_bench.jsonl", records)


def model(quality: Callable[[int], int]) -> Callable[[list[Messages]], list[str]]:
    """A model under test whose answer to question i has ``quality(i)``."""

    def answer(batch: list[Messages]) -> list[str]:
        return [f"mine, quality {quality(int(messages[-1]['content'].split()[1]))}" for messages in batch]

    return answer


def never(batch: list[Messages]) -> list[str]:
    raise AssertionError("the model under test was asked before the judge was checked")


def settings(server: FakeEndpoint, folder: Path, **changes: Any) -> JudgeSettings:
    known = {
        "base_url": server.base_url,
        "model": "fake",
        "store": folder / "judge.sqlite",
        "data_dir": folder,
        "patience": Patience(tries=8, first_wait=0.01, longest_wait=0.02),
        "timeout": 10.0,
    }
    return JudgeSettings(**{**known, **changes})


def shown(body: dict[str, Any]) -> tuple[str, str]:
    """The answers that a judge of pairs is shown as A and as B."""
    text = body["messages"][-1]["content"]
    return between(text, "<answer_A>\n", "\n</answer_A>"), between(text, "<answer_B>\n", "\n</answer_B>")


def verdict(value: object) -> str:
    name = "rating" if isinstance(value, (int, float)) else "verdict"
    return json.dumps({"reason": "so it is", name: value})


def fair(body: dict[str, Any], n: int) -> str:
    """Prefers the answer of the higher quality."""
    first, second = (quality_of(text) for text in shown(body))
    return verdict("A" if first > second else "B" if second > first else "tie")


def always_first(body: dict[str, Any], n: int) -> str:
    return verdict("A")


def grader(body: dict[str, Any], n: int) -> str:
    """Gives the quality of the last answer as its mark."""
    return verdict(quality_of(body["messages"][-1]["content"]))
