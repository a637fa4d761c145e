"""Which tasks a user means: names, groups of names, and the chain-of-thought variants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ultrafuser.errors import UserError, did_you_mean
from ultrafuser.evaluate.catalogue import TASKS, TaskInfo
from ultrafuser.evaluate.paper import COLUMNS

if TYPE_CHECKING:
    from ultrafuser.evaluate.judged.settings import JudgeSettings

GROUPS: Mapping[str, list[str]] = {
    "paper": [task.name for task in TASKS.values() if task.paper_column in COLUMNS],
    "miniworld": [task.name for task in TASKS.values() if task.kind == "miniworld"],
}


def choose_tasks(names: Sequence[str], *, cot: bool = False) -> list[TaskInfo]:
    """The tasks that ``names`` mean, each once: names of the catalogue or keys of `GROUPS`.

    With ``cot`` a task that has a chain-of-thought variant is replaced by it. Raises `UserError` for an unknown name, or none.
    """
    known = [*TASKS, *GROUPS]
    chosen: dict[str, TaskInfo] = {}
    for name in filter(None, names):  # a comma at the end of a list is no task
        if name not in known:
            raise UserError(f"unknown task '{name}'{did_you_mean(name, known)} (known: {', '.join(known)})")
        for one in GROUPS.get(name, [name]):
            variant = f"{one}_cot" if cot and TASKS[one].has_cot else one
            chosen[variant] = TASKS[variant]
    if not chosen:
        raise UserError(f"no task is given; known are {', '.join(known)}")
    return list(chosen.values())


def require_judge(tasks: Sequence[TaskInfo], judge: JudgeSettings | None) -> None:
    """Raise `UserError` if there is none for ``tasks`` that need it, telling how to ask for the others, or nothing to judge."""
    judged = [task.name for task in tasks if task.kind == "judged"]
    if judged and judge is None:
        others = ",".join(task.name for task in tasks if task.kind != "judged")
        who = f"{judged[0]} needs" if len(judged) == 1 else f"{' and '.join(judged)} need"
        instead = f", or --tasks {others}" if others else ""
        raise UserError(f"{who} a judge: give --judge-url and --judge-model{instead}")
    if judge is not None and not judged:
        known = " and ".join(task.name for task in TASKS.values() if task.kind == "judged")
        raise UserError(f"--judge-url: there is nothing to judge, only {known} are; ask for one of them, or leave the judge out")
