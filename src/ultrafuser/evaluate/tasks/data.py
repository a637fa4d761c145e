"""Hands a benchmark's records to lm-evaluation-harness, which calls `load` as a task's ``custom_dataset``."""

from __future__ import annotations

import importlib.util
from typing import Any

import datasets

from ultrafuser.errors import UserError
from ultrafuser.testsets import load_test_set


def load(test_set: str, data_dir: str | None = None, **_: Any) -> dict[str, datasets.Dataset]:
    """The data of ``test_set`` (`testsets.TEST_SETS`) as the split "test".

    The harness passes a task's ``dataset_kwargs`` and all of its metadata: ``data_dir`` is ours, the rest is ignored.
    """
    # Said before anything is generated, not after.
    if test_set == "math" and importlib.util.find_spec("math_verify") is None:
        raise UserError("MATH answers are compared by math-verify: pip install 'ultrafuser[eval]'")
    return {"test": datasets.Dataset.from_list(load_test_set(test_set, data_dir))}
