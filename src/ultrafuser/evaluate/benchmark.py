"""Models x tasks: judges any number of models on the same tasks and writes down what came out (issue 3).

Everything that can be checked is checked before the first prompt is asked. After that nothing ends the evaluation: a task that
fails is marked as failed, with its reason in one line, and the others go on. Answers are kept (`kept.py`), so the same command
again repeats nothing. A model is loaded once.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ultrafuser.errors import UserError, first_line
from ultrafuser.evaluate.catalogue import TaskInfo
from ultrafuser.evaluate.choice import choose_tasks, require_judge
from ultrafuser.evaluate.directory import TRACEBACKS_FILE, claimed, prepare
from ultrafuser.evaluate.harness import require_harness, run_task
from ultrafuser.evaluate.kept import KeptAnswers
from ultrafuser.evaluate.miniworld import run_miniworld
from ultrafuser.evaluate.models import Model, find_models, open_model, specialist_rows
from ultrafuser.evaluate.report import write_reports
from ultrafuser.evaluate.requirements import require_scoring
from ultrafuser.evaluate.results import Failure, Results
from ultrafuser.evaluate.score import TaskScore
from ultrafuser.evaluate.settings import EvalSettings
from ultrafuser.facts import run_facts
from ultrafuser.io import is_directory, user_path
from ultrafuser.model.digest import model_digest
from ultrafuser.model.load import find_device, free_memory
from ultrafuser.model.quantise import require_quantiser
from ultrafuser.sandbox import isolation
from ultrafuser.testsets import load_test_set, loaded_once

if TYPE_CHECKING:
    from ultrafuser.evaluate.lm import UltraFuserLM

DECISIVE = ("limit", "seed", "cot", "max_new_tokens", "template", "dtype", "load_in")  # the settings that change what is answered
JUDGED_NEW_TOKENS = 1024  # of an answer that a judge reads


def evaluate_models(models: Sequence[str | Path], tasks: Sequence[str], settings: EvalSettings) -> Results:
    """Judge ``models`` on ``tasks``; write results.json, results.md, report.html and the single items into ``settings.out``.

    Args:
        models: directories or hub ids, fused or not, each on its own or as ``NAME=PLACE``.
        tasks: names in the catalogue, or groups of them (`choice.GROUPS`).
        settings: how.

    Returns:
        All outcomes; `Results.failures` says what failed.

    Raises:
        UserError: unknown task, no such model, a model without a chat template, no judge for a judged task, other results there.
    """
    started = time.monotonic()
    chosen = choose_tasks(tasks, cot=settings.cot)
    _require(chosen, settings)
    rows = find_models(models, settings)
    results = _start(rows, chosen, settings)
    with loaded_once(), claimed(settings.out, results.question) as kept:
        hopeless = _hopeless(chosen, settings)
        for row in rows:
            for task in chosen:
                if task.name in hopeless:
                    results.add(row.name, task, hopeless[task.name])
        for row in rows:
            _evaluate(row, [task for task in chosen if task.name not in hopeless], results, kept)
            free_memory()  # here, where nothing holds the model any more: the next one may need all of it
    results.finished = True
    results.facts["duration"] = f"{(time.monotonic() - started) / 60:.1f} minutes"
    results.write()
    write_reports(results)
    return results


def _require(tasks: Sequence[TaskInfo], settings: EvalSettings) -> None:
    """Raise `UserError` for what the tasks need and is not there."""
    require_harness()
    find_device(settings.device)
    require_quantiser(settings.load_in)
    if settings.data_dir is not None and not is_directory(user_path(settings.data_dir)):
        raise UserError(f"--data-dir {settings.data_dir}: no such directory; leave it out to take the data from the hub")
    require_judge(tasks, settings.judge)
    if settings.judge is not None:
        from ultrafuser.evaluate.judged.check import require_same_judge

        require_same_judge(settings.judge)


def _start(rows: Sequence[Model], tasks: Sequence[TaskInfo], settings: EvalSettings) -> Results:
    """Empty results for ``settings.out``. Raises `UserError` if that holds those of another evaluation."""
    judge = settings.judge
    question = {
        "models": {row.name: f"{row.given} {model_digest(row.folder)}" for row in rows},
        "tasks": [task.name for task in tasks],
        **{name: getattr(settings, name) for name in DECISIVE},
        "data": str(settings.data_dir or "hub"),
        "judge": judge and {name: getattr(judge, name) for name in ("model", "reference")},  # not where: it may move
    }
    specialists = specialist_rows(rows, settings.specialists)
    prepare(settings.out, question, overwrite=settings.overwrite)
    facts = run_facts(settings.seed) | {"sandbox": isolation() or "none"}
    return Results([row.name for row in rows], tasks, specialists, settings, facts, question)


def _hopeless(tasks: Sequence[TaskInfo], settings: EvalSettings) -> Mapping[str, Failure]:
    """The tasks that no model can do, since their data, their judge or what scores their answers is not there."""
    found: dict[str, Failure] = {}
    for task in tasks:
        try:
            require_scoring(task)
            if task.test_set is not None:
                load_test_set(task.test_set, settings.data_dir)
            if task.kind == "judged":
                _check_judge(settings)
        except UserError as error:
            found[task.name] = Failure(str(error).removeprefix(f"{task.test_set}: "))
            _say(f"{task.name}: {found[task.name].reason}")
    return found


def _check_judge(settings: EvalSettings) -> None:
    from ultrafuser.evaluate.judged.check import check_judge

    assert settings.judge is not None
    check_judge(settings.judge)


def _evaluate(model: Model, tasks: Sequence[TaskInfo], results: Results, kept: KeptAnswers) -> None:
    """Load one model and put it to the tasks."""
    if not tasks:
        return
    settings = results.settings
    try:
        with open_model(model, settings, kept) as lm:
            results.notes[model.name] = [note for note in (lm.prompt_note(),) if note]
            for task in tasks:
                results.add(model.name, task, _attempt(lm, model, task, settings))
    except Exception as error:  # whatever it is, the other models go on
        failure = _failure(error, model.name, settings)
        for task in tasks:
            if (model.name, task.name) not in results.outcomes:
                results.add(model.name, task, failure)


def _attempt(lm: UltraFuserLM, model: Model, task: TaskInfo, settings: EvalSettings) -> TaskScore | Failure:
    try:
        return _run(lm, task, settings)
    except Exception as error:  # whatever it is, the other tasks go on
        return _failure(error, f"{model.name}, {task.name}", settings)


def _run(lm: UltraFuserLM, task: TaskInfo, settings: EvalSettings) -> TaskScore:
    if task.kind == "harness":
        return run_task(lm, task, settings)
    if task.kind == "miniworld":
        return run_miniworld(lm, task, settings)
    from ultrafuser.evaluate.judged.alpaca_eval import run_alpaca_eval
    from ultrafuser.evaluate.judged.mt_bench import run_mt_bench

    assert settings.judge is not None
    lm.start(task.title)
    judged = {"alpaca_eval": run_alpaca_eval, "mt_bench": run_mt_bench}[task.name]
    score = judged(partial(lm.answer, max_new_tokens=settings.max_new_tokens or JUDGED_NEW_TOKENS), settings.judge)
    score.notes += lm.room.notes()
    return score


def _failure(error: Exception, where: str, settings: EvalSettings) -> Failure:
    """One line for the user; of what is not their mistake the traceback too, in a file."""
    if isinstance(error, UserError):
        reason = str(error)
    else:
        reason = f"{type(error).__name__}: {first_line(error)} (more in {settings.out / TRACEBACKS_FILE})"
        with open(settings.out / TRACEBACKS_FILE, "a", encoding="utf-8") as file:
            file.write(f"{where}\n{''.join(traceback.format_exception(error))}\n")
    _say(f"{where}: {reason}")
    return Failure(reason)


def _say(line: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"failed: {line}", markup=False)
