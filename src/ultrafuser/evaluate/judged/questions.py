"""The questions of a judged task, and MT-Bench's official prompts where the data directory holds them.

Questions come in a seeded random order: when the judge's budget ends before they do, the number so far is of a random sample,
not of the parts that happen to stand first in the file.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ultrafuser.evaluate.judged.prompts import official_prompts
from ultrafuser.evaluate.judged.settings import JudgeSettings
from ultrafuser.io import user_path
from ultrafuser.testsets import find_file, load_test_set, read_records

OFFICIAL_FILE = "mt_bench_judge_prompts"


def load_questions(name: str, settings: JudgeSettings) -> list[dict[str, Any]]:
    """The first ``settings.limit`` records of the test set, shuffled by ``settings.seed``. Raises `UserError`."""
    records = load_test_set(name, settings.data_dir)[: settings.limit]
    random.Random(settings.seed).shuffle(records)
    return records


def load_official_prompts(data_dir: Path | None) -> Mapping[str, Mapping[str, str]]:
    """MT-Bench's own grading prompts by name from ``data_dir``; empty when it has none. Raises `UserError` for a broken file."""
    path = find_file(user_path(data_dir), OFFICIAL_FILE) if data_dir else None
    return official_prompts(list(read_records(path, ("name", "system_prompt", "prompt")))) if path else {}
