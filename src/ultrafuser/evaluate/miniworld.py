"""The generated world's test tasks as benchmarks: any model with a chat template answers them, exact checkers judge."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ultrafuser.evaluate.catalogue import TaskInfo
from ultrafuser.evaluate.score import TaskScore, mean_and_error, prompts_hash
from ultrafuser.evaluate.settings import EvalSettings
from ultrafuser.miniworld.check import check_answers
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
    answers = lm.answer(prompts, settings.max_new_tokens or MAX_NEW_TOKENS)
    right = check_answers(items, answers)
    records = [
        {
            "id": f"{item.domain}-{place}",
            "question": item.prompt,
            "answer": answer,
            "target": item.answer,
            "score": float(ok),
        }
        for place, (item, answer, ok) in enumerate(zip(items, answers, right, strict=True))
    ]
    value, error = mean_and_error([float(ok) for ok in right])
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
