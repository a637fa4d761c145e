"""Judges one model: accuracy on the generated world's tasks, or the loss on held-out conversations.

What a model answered is kept beside its scores, one JSON file per model, so that a run goes on where it stopped and a score
can be traced back to the answers behind it. The file says by a digest which model was judged: another one is judged anew.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ultrafuser.evaluate.answers import generate_answers
from ultrafuser.evaluate.heldout import heldout_loss
from ultrafuser.intervals import Interval, wilson
from ultrafuser.io import read_json, write_json
from ultrafuser.miniworld.check import check_answers
from ultrafuser.model.digest import model_digest
from ultrafuser.model.load import free_memory, load
from ultrafuser.run.materials import Materials
from ultrafuser.schema import Recipe

Scores = dict[str, Interval]  # by domain


@dataclass(frozen=True)
class Candidate:
    """A model to be judged.

    Args:
        name: its row in the table.
        role: what it is in the run; unlike names and directories no two models' are the same. Its scores' file has this name.
        folder: where it is.
        template: the Jinja text of its chat template, if not its tokenizer's own.
        baseline: is it there to be compared with?
    """

    name: str
    role: str
    folder: Path
    template: str | None = None
    baseline: bool = True


def judge(candidate: Candidate, materials: Materials, recipe: Recipe, folder: Path) -> Scores:
    """Scores of a model per domain; taken from its file in ``folder`` if it was judged before."""
    file, digest = folder / f"{candidate.role}.json", model_digest(candidate.folder)
    if not file.exists() or read_json(file).get("model") != digest:
        write_json(file, {"model": digest} | _judge(candidate, materials, recipe))
        free_memory()
    return {domain: Interval(**cell) for domain, cell in read_json(file)["scores"].items()}


def _judge(candidate: Candidate, materials: Materials, recipe: Recipe) -> dict[str, Any]:
    model, tokenizer = load(candidate.folder, load_in=recipe.train.load_in)
    if candidate.template is not None:
        tokenizer.chat_template = candidate.template
    return (_accuracy if materials.tasks else _loss)(model, tokenizer, materials, recipe)


def _accuracy(model: Any, tokenizer: Any, materials: Materials, recipe: Recipe) -> dict[str, Any]:
    tasks, limits = materials.tasks, recipe.evaluation
    answers = generate_answers(
        model,
        tokenizer,
        [conversation.messages[:-1] for conversation in materials.heldout],
        max_new_tokens=limits.max_new_tokens,
        batch_size=limits.batch_size,
        progress=sys.stderr.isatty(),
    )
    right = check_answers(tasks, answers)
    scores = {}
    for domain in dict.fromkeys(task.domain for task in tasks):
        mine = [ok for task, ok in zip(tasks, right, strict=True) if task.domain == domain]
        scores[domain] = asdict(wilson(sum(mine), len(mine)))
    records = [
        {"domain": task.domain, "family": task.family, "prompt": task.prompt, "answer": answer, "right": ok}
        for task, answer, ok in zip(tasks, answers, right, strict=True)
    ]
    return {"metric": "accuracy", "scores": scores, "records": records}


def _loss(model: Any, tokenizer: Any, materials: Materials, recipe: Recipe) -> dict[str, Any]:
    losses = heldout_loss(
        model,
        tokenizer,
        materials.heldout,
        batch_size=recipe.evaluation.batch_size,
        max_length=recipe.data.max_length,
        progress=sys.stderr.isatty(),
    )
    return {"metric": "loss", "scores": {domain: asdict(loss.interval()) for domain, loss in losses.items()}}
