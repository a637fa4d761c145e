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
from ultrafuser.evaluate.miniworld import answer_records
from ultrafuser.intervals import Interval, wilson
from ultrafuser.io import read_json, write_json
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


def judge(candidate: Candidate, materials: Materials, recipe: Recipe, folder: Path, longest: int) -> Scores:
    """Scores of a model per domain; taken from its file in ``folder`` if it was judged before.

    Held-out conversations are cut to ``longest`` tokens, for all models alike.
    """
    file, digest = folder / f"{candidate.role}.json", model_digest(candidate.folder)
    if not file.exists() or read_json(file).get("model") != digest:
        write_json(file, {"model": digest} | _judge(candidate, materials, recipe, longest))
        free_memory()
    return {domain: Interval(**cell) for domain, cell in read_json(file)["scores"].items()}


def _judge(candidate: Candidate, materials: Materials, recipe: Recipe, longest: int) -> dict[str, Any]:
    model, tokenizer = load(candidate.folder, load_in=recipe.train.load_in)
    if candidate.template is not None:
        tokenizer.chat_template = candidate.template
    if materials.tasks:
        return _accuracy(model, tokenizer, materials, recipe)
    return _loss(model, tokenizer, materials, recipe.evaluation.batch_size, longest)


def _accuracy(model: Any, tokenizer: Any, materials: Materials, recipe: Recipe) -> dict[str, Any]:
    limits = recipe.evaluation
    answers = generate_answers(
        model,
        tokenizer,
        [conversation.messages[:-1] for conversation in materials.heldout],
        max_new_tokens=limits.max_new_tokens,
        batch_size=limits.batch_size,
        progress=sys.stderr.isatty(),
    )
    records = answer_records(materials.tasks, answers)
    right: dict[str, list[float]] = {}
    for record in records:
        right.setdefault(record["domain"], []).append(record["score"])
    scores = {domain: asdict(wilson(sum(own), len(own))) for domain, own in right.items()}
    return {"metric": "accuracy", "scores": scores, "records": records}


def _loss(model: Any, tokenizer: Any, materials: Materials, batch_size: int, longest: int) -> dict[str, Any]:
    losses = heldout_loss(
        model,
        tokenizer,
        materials.heldout,
        batch_size=batch_size,
        max_length=longest,
        progress=sys.stderr.isatty(),
    )
    return {"metric": "loss", "scores": {domain: asdict(loss.interval()) for domain, loss in losses.items()}}
