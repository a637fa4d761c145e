"""The benchmarks' repositories as they are laid out on the hub, with the hand-made rows of `benchmark_rows.HUB_ROWS` in them.

Names, configurations, files, columns and types are the hub's of November 2025 (openai/gsm8k 740312a, EleutherAI/hendrycks_math
7811dc4, hails/agieval-sat-math 9d7770b, tatsu-lab/alpaca_eval 2edc6fa, HuggingFaceH4/mt_bench_prompts b60d01a, and main of the
others); what we do not ask for, other splits and configurations among it, is there too.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from datasets import Dataset, Features, List, Value

from benchmark_rows import HUB_ROWS
from ultrafuser.testsets_hub import MATH_SUBJECTS

Rows = Sequence[Mapping[str, Any]]
TEXT, TEXTS = Value("string"), List(Value("string"))
TARGETS = {"choices": TEXTS, "labels": List(Value("int32"))}
GSM8K = {"question": TEXT, "answer": TEXT}
MATH = {"problem": TEXT, "level": TEXT, "type": TEXT, "solution": TEXT}
AGIEVAL = {"query": TEXT, "choices": TEXTS, "gold": List(Value("int64"))}
HUMANEVAL = dict.fromkeys(("task_id", "prompt", "canonical_solution", "test", "entry_point"), TEXT)
MBPP = {
    "task_id": Value("int32"),
    "text": TEXT,
    "code": TEXT,
    "test_list": TEXTS,
    "test_setup_code": TEXT,
    "challenge_test_list": TEXTS,
}
TRUTHFULQA = {"question": TEXT, "mc1_targets": TARGETS, "mc2_targets": TARGETS}
MT_BENCH = {"prompt": TEXTS, "prompt_id": Value("int64"), "category": TEXT, "reference": TEXTS}
SCRIPT = b"import datasets\n\nraise SystemExit('a loading script was run')\n"


def parquet(rows: Rows, columns: Mapping[str, Any]) -> bytes:
    """A Parquet file as ``push_to_hub`` writes it."""
    made = Dataset.from_dict({name: [row.get(name) for row in rows] for name in columns}, features=Features(columns))
    made.to_parquet(file := io.BytesIO())
    return file.getvalue()


def card(configs: Mapping[str, Sequence[str]], default: str | None = None) -> bytes:
    """README.md whose header says where the splits of each configuration are: in files called like them, in its directory."""
    header = [
        {"config_name": name, "data_files": [{"split": split, "path": f"{_folder(name)}/{split}-*"} for split in splits]}
        | ({"default": True} if name == default else {})
        for name, splits in configs.items()
    ]
    return f"---\n{yaml.safe_dump({'configs': header})}---\n# A dataset\n".encode()


def files(
    config: str, columns: Mapping[str, Any], rows: Rows, split: str = "test", others: Sequence[str] = ()
) -> dict[str, bytes]:
    """The Parquet files of a configuration: ``rows`` in ``split``, rows that are not to be taken in the other splits."""
    other = [dict.fromkeys(columns)]
    splits = {split: parquet(rows, columns)} | {name: parquet(other, columns) for name in others}
    return {f"{_folder(config)}/{name}-00000-of-00001.parquet": content for name, content in splits.items()}


def _folder(config: str) -> str:
    return "data" if config == "default" else config


def repositories() -> dict[str, dict[str, bytes]]:
    """Repository -> its files."""
    whole = {name: [row for part in parts for row in part] for name, parts in HUB_ROWS.items()}
    older, newer = HUB_ROWS["alpaca_eval"]
    both, validation = ("train", "test"), ("validation",)
    math = [files(subject, MATH, rows, others=["train"]) for subject, rows in zip(MATH_SUBJECTS, HUB_ROWS["math"], strict=True)]
    return {
        "openai/gsm8k": {
            "README.md": card({"main": both, "socratic": both}),
            "eval.yaml": b"name: gsm8k\n",
            **files("main", GSM8K, whole["gsm8k"], others=["train"]),
            **files("socratic", GSM8K, [], others=["train"]),
        },
        "EleutherAI/hendrycks_math": {
            "README.md": card(dict.fromkeys(MATH_SUBJECTS, both)),
            **{path: content for part in math for path, content in part.items()},
        },
        "hails/agieval-sat-math": {"README.md": card({"default": ["test"]}), **files("default", AGIEVAL, whole["sat_math"])},
        "hails/agieval-aqua-rat": {"README.md": card({"default": ["test"]}), **files("default", AGIEVAL, whole["aqua"])},
        "openai/openai_humaneval": {
            "README.md": card({"openai_humaneval": ["test"]}, default="openai_humaneval"),
            **files("openai_humaneval", HUMANEVAL, whole["humaneval"]),
        },
        "google-research-datasets/mbpp": {
            "README.md": card({"full": [*both, "validation", "prompt"], "sanitized": both}, default="full"),
            **files("full", MBPP, whole["mbpp"], others=["train", "validation", "prompt"]),
            **files("sanitized", {"prompt": TEXT}, [], others=["train"]),
        },
        "truthfulqa/truthful_qa": {
            "README.md": card({"generation": validation, "multiple_choice": validation}),
            **files("generation", {"best_answer": TEXT}, [], "validation"),
            **files("multiple_choice", TRUTHFULQA, whole["truthfulqa"], "validation"),
        },
        "tatsu-lab/alpaca_eval": {
            "README.md": b"---\nlicense: cc-by-nc-4.0\n---\n",
            "alpaca_eval.py": SCRIPT,
            "alpaca_eval.json": json.dumps(older).encode(),
            "alpaca_eval_gpt4_baseline.json": json.dumps(newer).encode(),
            "alpaca_eval_all_outputs.json": b"[]",
            "instruction_difficulty.csv": b"index,difficulty\n0,1.0\n",
        },
        "HuggingFaceH4/mt_bench_prompts": {
            "README.md": b"---\nlicense: apache-2.0\n---\n# MT Bench\n",
            "data/train-00000-of-00001-67c6c9fef07685a3.parquet": parquet(whole["mt_bench"], MT_BENCH),
            "raw/question.jsonl": b'{"question_id": 81, "category": "writing", "prompt": ["As it was."]}\n',
        },
    }
