"""Where the benchmarks lie on the hub, and how a row there becomes a record of ours (see `testsets.py`).

Datasets and splits are those of lm-evaluation-harness's own tasks, so a score here and one there are about the same questions;
AlpacaEval and MT-Bench, which it does not have, come from their authors' and from Hugging Face's copy. MATH on the hub is the
full test set of 5,000 problems. AGIEval's copy there has no worked solutions, so ``response`` is missing.
"""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ultrafuser.boxed import last_boxed

logger = logging.getLogger(__name__)
Row = Mapping[str, Any]
Record = dict[str, Any]
MATH_SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)


@dataclass(frozen=True)
class HubSource:
    """Where a benchmark lies and what becomes of it.

    Args:
        parts: of what it is put together: arguments of `hub.load_dataset`, or of ``hf_hub_download`` for one JSON file.
        convert: from the rows of each part to records.
    """

    parts: tuple[dict[str, Any], ...]
    convert: Callable[[list[list[Row]]], list[Record]]


def _each(convert: Callable[[Row, int], Record]) -> Callable[[list[list[Row]]], list[Record]]:
    """Convert row by row, over all parts; the second argument is the row's number."""
    return lambda parts: [convert(row, number) for number, row in enumerate(row for part in parts for row in part)]


def derive_instruction(prompt: str, entry_point: str) -> Record:
    """HumanEval's function head as an instruction, in the manner of InstructHumanEval: "Write a function .. to solve ..".

    Returns the fields ``prompt`` (the instruction), ``signature``, ``docstring``, ``context`` (imports and helpers before the
    function, which a solution may use) and ``completion_prefix`` (the head itself).
    """
    nodes = ast.parse(prompt).body
    place = next(place for place, node in enumerate(nodes) if isinstance(node, ast.FunctionDef) and node.name == entry_point)
    function = nodes[place]
    assert isinstance(function, ast.FunctionDef)
    returns = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    signature = f"{entry_point}({ast.unparse(function.args)}){returns}"
    docstring = ast.get_docstring(function) or ""
    instruction = f"Write a function {signature} to solve the following problem:\n{docstring}"
    context = "\n".join(ast.unparse(node) for node in nodes[:place])
    return {
        "prompt": instruction,
        "signature": signature,
        "docstring": docstring,
        "context": context,
        "completion_prefix": prompt,
    }


def _gsm8k(row: Row, number: int) -> Record:
    solution = re.sub(r"<<[^>]*>>", "", row["answer"])  # the calculator's annotations
    answer = row["answer"].rpartition("####")[2].strip().replace(",", "")
    return {"id": f"gsm8k-test-{number}", "prompt": row["question"], "response": solution, "answer": answer}


def _math(row: Row, number: int) -> Record:
    level = re.sub(r"\D", "", row["level"])
    return {
        "id": f"math-{number}",
        "prompt": row["problem"],
        "response": row["solution"],
        "answer": last_boxed(row["solution"]) or "",
        "subject": row["type"],
        "level": int(level) if level else None,  # two problems have "Level ?"
    }


def _choices(name: str) -> Callable[[Row, int], Record]:
    """AGIEval's row: ``query`` is "Q: QUESTION Answer Choices: (A).. (B)..\nA: Among A through D, the answer is"."""

    def convert(row: Row, number: int) -> Record:
        question, marker, _ = row["query"].rpartition(" Answer Choices:")
        if not marker:
            raise ValueError("a query without 'Answer Choices:'")
        question = question.removeprefix("Q: ").strip()
        choices = [re.sub(r"^\([A-G]\)\s*", "", choice).strip() for choice in row["choices"]]
        labels = list("ABCDEFG"[: len(choices)])
        label = labels[row["gold"][0]]
        options = "".join(f"\n({letter}) {choice}" for letter, choice in zip(labels, choices, strict=True))
        fields = {"question": question, "choices": choices, "choice_labels": labels, "label": label, "answer": label}
        return {"id": f"{name}-{number}", "prompt": question + options, **fields}

    return convert


def _humaneval(row: Row, number: int) -> Record:
    return {
        "id": f"HumanEval-{number}",
        **derive_instruction(row["prompt"], row["entry_point"]),
        "response": row["prompt"] + row["canonical_solution"],
        "tests": row["test"],
        "entry_point": row["entry_point"],
    }


def _mbpp(row: Row, number: int) -> Record:
    code = row["code"].replace("\r\n", "\n")
    setup, tests = row["test_setup_code"] or "", list(row["test_list"])
    name = _tested_function(code, "\n".join(tests))
    head = re.search(rf"^def {re.escape(name)}\s*\(.*?\)[^:()]*:", code, re.MULTILINE | re.DOTALL)
    return {
        "id": f"mbpp-{row['task_id']}",
        "prompt": row["text"],
        "response": code,
        "tests": "\n".join([*([setup] if setup else []), *tests]),
        "test_list": tests,
        "entry_point": name,
        "context": setup,
        "completion_prefix": head.group() + "\n" if head else "",
    }


def _tested_function(code: str, tests: str) -> str:
    """The function of ``code`` that the tests call: the last one defined, if they call several."""
    called = {
        node.func.id for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    defined = [name for name in re.findall(r"^def (\w+)", code, re.MULTILINE) if name in called]
    return defined[-1] if defined else next(iter(re.findall(r"assert\W*(\w+)\s*\(", tests)), "")


def _truthfulqa(row: Row, number: int) -> Record:
    first, second = row["mc1_targets"], row["mc2_targets"]
    return {
        "id": f"truthfulqa-{number}",
        "prompt": row["question"],
        "answer": first["choices"][list(first["labels"]).index(1)],
        "mc1_choices": list(first["choices"]),
        "mc1_labels": list(first["labels"]),
        "mc2_choices": list(second["choices"]),
        "mc2_labels": list(second["labels"]),
    }


def _alpaca_eval(parts: list[list[Row]]) -> list[Record]:
    """Two files with the answers of the two reference models, matched by their instructions; those in one only are told."""
    older, newer = parts
    by_instruction = {row["instruction"]: row["output"] for row in older}
    known = {row["instruction"] for row in newer}
    if lone := by_instruction.keys() ^ known:
        share = f"{len(lone)} of {len(by_instruction.keys() | known)} instructions"
        logger.warning("note: alpaca_eval: %s are left out, since only one of the two reference models has an answer", share)
    return [
        {
            "id": f"alpaca_eval-{number}",
            "prompt": row["instruction"],
            "dataset": row["dataset"],
            "reference_text_davinci_003": by_instruction[row["instruction"]],
            "reference_gpt4_1106_preview": row["output"],
        }
        for number, row in enumerate(newer)
        if row["instruction"] in by_instruction
    ]


def _mt_bench(row: Row, number: int) -> Record:
    turns = list(row["prompt"])
    reference = list(row["reference"] or []) or None
    # MT-Bench numbers its questions from 81.
    return {
        "id": f"mt_bench-{number + 81}",
        "prompt": turns[0],
        "turns": turns,
        "category": row["category"],
        "reference": reference,
    }


def _sources() -> Iterator[tuple[str, HubSource]]:
    def part(repository: str, name: str | None = None, split: str = "test") -> dict[str, Any]:
        return {"given": repository, "name": name, "split": split}

    yield "gsm8k", HubSource((part("openai/gsm8k", "main"),), _each(_gsm8k))
    yield "math", HubSource(tuple(part("EleutherAI/hendrycks_math", subject) for subject in MATH_SUBJECTS), _each(_math))
    yield "sat_math", HubSource((part("hails/agieval-sat-math"),), _each(_choices("agieval_sat_math")))
    yield "aqua", HubSource((part("hails/agieval-aqua-rat"),), _each(_choices("agieval_aqua_rat")))
    yield "humaneval", HubSource((part("openai/openai_humaneval"),), _each(_humaneval))
    yield "mbpp", HubSource((part("google-research-datasets/mbpp", "full"),), _each(_mbpp))
    yield "truthfulqa", HubSource((part("truthfulqa/truthful_qa", "multiple_choice", "validation"),), _each(_truthfulqa))
    # Read as files: this repository's loading script no longer runs in datasets 4.
    files = ("alpaca_eval.json", "alpaca_eval_gpt4_baseline.json")
    at = {"repo_id": "tatsu-lab/alpaca_eval", "repo_type": "dataset"}
    yield "alpaca_eval", HubSource(tuple(at | {"filename": file} for file in files), _alpaca_eval)
    yield "mt_bench", HubSource((part("HuggingFaceH4/mt_bench_prompts", split="train"),), _each(_mt_bench))


HUB: Mapping[str, HubSource] = dict(_sources())
