"""Tiny models and tiny test data for the tests of evaluate/."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers.processors import TemplateProcessing

from tiny import tiny_specialist, tiny_tokenizer
from ultrafuser.model.fuse import fuse

NAMES = ("text", "code", "math")
TEMPLATES = dict(zip(NAMES, ("user", "inst", "chatml"), strict=True))
QUESTIONS = [
    "What is the sum of 12 and 30?",
    "The fox has 5 dogs and buys 7 more. How many dogs has the fox? Think about the lazy dog too, then say it.",
    "Add 1 and 2.",
    "What is the sum of 12 and 30?",
    "Sum?",
    "If $x - 1 = 3$, what is $2x$ then?",
]


def make_models(folder: Path, *, adds_bos: bool = False, **config: Any) -> dict[str, Path]:
    """Three random specialists with unlike chat templates, and what they fuse to; ``adds_bos``: as Llama's tokenizer does."""
    places = {}
    for seed, name in enumerate(NAMES):
        tokenizer = tiny_tokenizer(TEMPLATES[name])
        if adds_bos:
            bos = [("<s>", tokenizer.bos_token_id)]
            tokenizer._tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=bos)
        places[name] = tiny_specialist(folder / name, seed=seed, tokenizer=tokenizer, **config)
    fuse(list(places.values()), folder / "fused", names=list(NAMES))
    return places | {"fused": folder / "fused"}


def make_data(folder: Path) -> Path:
    """A data directory with a few questions of GSM8K, SAT-Math, AQuA and TruthfulQA."""
    choices: dict[str, Any] = {"choices": ["3", "42", "7", "8"], "choice_labels": list("ABCD"), "label": "B"}
    options = "\n".join(f"({label}) {text}" for label, text in zip(choices["choice_labels"], choices["choices"], strict=True))
    truths: dict[str, Any] = {"mc2_choices": ["It is 42.", "It is the fox.", "The lazy dog, first."], "mc2_labels": [1, 0, 1]}
    sets = {
        "gsm8k_test": [{"response": "#### 42", "answer": "42"}] * len(QUESTIONS),
        "agieval_sat_math": [choices] * 4,
        "agieval_aqua_rat": [choices] * 4,
        "truthfulqa": [truths] * 5,
    }
    (folder / "eval").mkdir(parents=True)
    for file, rest in sets.items():
        records = [{"id": f"{file}-{i}", "prompt": QUESTIONS[i], "question": QUESTIONS[i], **more} for i, more in enumerate(rest)]
        for record in records:
            if "choices" in record:
                record["prompt"] += "\n" + options
        (folder / "eval" / f"{file}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return folder
