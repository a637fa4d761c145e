"""Judges one model: accuracy on the generated world's tasks, or the loss on held-out conversations.

What a model answered is kept beside its scores, one JSON file per model, so that a run goes on where it stopped and a score
can be traced back to the answers behind it.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ultrafuser.evaluate.answers import generate_answers
from ultrafuser.evaluate.heldout import heldout_loss
from ultrafuser.intervals import Interval, wilson
from ultrafuser.io import read_json, write_json
from ultrafuser.miniworld.check import check_answers
from ultrafuser.model.load import load
from ultrafuser.run.materials import Materials
from ultrafuser.schema import Recipe

Scores = dict[str, Interval]  # by domain


def judge(path: Path, materials: Materials, recipe: Recipe, scores_file: Path) -> Scores:
    """Scores of the model at ``path`` per domain; taken from ``scores_file`` if it is there already."""
    if not scores_file.exists():
        model, tokenizer = load(path)
        found = _accuracy(model, tokenizer, materials, recipe) if materials.tasks else _loss(model, tokenizer, materials, recipe)
        write_json(scores_file, found)
    return {domain: Interval(**cell) for domain, cell in read_json(scores_file)["scores"].items()}


def _accuracy(model: Any, tokenizer: Any, materials: Materials, recipe: Recipe) -> dict[str, Any]:
    tasks, limits = materials.tasks, recipe.evaluation
    prompts = [conversation.messages[:-1] for conversation in materials.heldout]
    answers = generate_answers(model, tokenizer, prompts, max_new_tokens=limits.max_new_tokens, batch_size=limits.batch_size)
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
        model, tokenizer, materials.heldout, batch_size=recipe.evaluation.batch_size, max_length=recipe.data.max_length
    )
    return {"metric": "loss", "scores": {domain: asdict(loss.interval()) for domain, loss in losses.items()}}
