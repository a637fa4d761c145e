"""Hands a benchmark's records to lm-evaluation-harness, which calls `load` as a task's ``custom_dataset``."""

from __future__ import annotations

from typing import Any

import datasets

from ultrafuser.evaluate.catalogue import TASKS
from ultrafuser.evaluate.requirements import require_scoring
from ultrafuser.testsets import load_test_set


def load(test_set: str, data_dir: str | None = None, **_: Any) -> dict[str, datasets.Dataset]:
    """The data of ``test_set`` (`testsets.TEST_SETS`) as the split "test".

    The harness passes a task's ``dataset_kwargs`` and all of its metadata: ``data_dir`` is ours, the rest is ignored. Raises
    `UserError` when the data are not there, or answers could not be scored.
    """
    for task in TASKS.values():
        if task.test_set == test_set:
            require_scoring(task)
    return {"test": datasets.Dataset.from_list(load_test_set(test_set, data_dir))}
