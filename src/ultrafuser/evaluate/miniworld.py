"""The generated world's test tasks as benchmarks: any model with a chat template answers them, exact checkers judge."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ultrafuser.evaluate.catalogue import TaskInfo
from ultrafuser.evaluate.score import TaskScore, mean_and_error, prompts_hash
from ultrafuser.evaluate.settings import EvalSettings
from ultrafuser.miniworld.check import check_answers
from ultrafuser.miniworld.task import Task
from ultrafuser.miniworld.world import generate

if TYPE_CHECKING:
    from ultrafuser.evaluate.lm import UltraFuserLM

ITEMS = 300
MAX_NEW_TOKENS = 30


def run_miniworld(lm: UltraFuserLM, task: TaskInfo, settings: EvalSettings) -> TaskScore:
    """The accuracy of ``lm`` on `ITEMS` (or ``settings.limit``) test tasks of one domain, drawn with ``settings.seed``."""
    started = time.monotonic()
    lm.start(task.title)
    items = generate(task.name.removeprefix("miniworld_"), settings.limit or ITEMS, settings.seed, "test")
    prompts = [[{"role": "user", "content": item.prompt}] for item in items]
    records = answer_records(items, lm.answer(prompts, settings.max_new_tokens or MAX_NEW_TOKENS))
    value, error = mean_and_error([record["score"] for record in records])
    return TaskScore(
        task=task.name,
        value=value,
        standard_error=error,
        n=len(items),
        unparsed=0,
        seconds=time.monotonic() - started,
        records=records,
        prompts_hash=prompts_hash(prompts),
        notes=lm.room.notes(),
    )


def answer_records(tasks: Sequence[Task], answers: Sequence[str]) -> list[dict[str, Any]]:
    """What was asked, answered and expected in every task; ``score`` is 1 where the exact checker finds the answer right."""
    return [
        {
            "id": f"{task.domain}-{place}",
            "domain": task.domain,
            "family": task.family,
            "question": task.prompt,
            "answer": answer,
            "target": task.answer,
            "score": float(right),
        }
        for place, (task, answer, right) in enumerate(zip(tasks, answers, check_answers(tasks, answers), strict=True))
    ]
