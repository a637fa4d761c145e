"""Puts a finished training run in its place: the last stage's result, with its history and a model card that tells of it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
import transformers

import ultrafuser
from ultrafuser.io import new_directory, read_json, write_json, write_text
from ultrafuser.model.card import UNTRAINED
from ultrafuser.train.claim import SETTINGS_FILE
from ultrafuser.train.places import Places
from ultrafuser.train.result import HISTORY, link_tree
from ultrafuser.train.stage import Stage, TrainSettings
from ultrafuser.train.trainer import METRICS_FILE


def publish(places: Places, settings: TrainSettings) -> None:
    """Write the output of a run whose stages are all done, and the results that are to be kept; then the work directory goes."""
    for result, folder in places.kept.items():
        with new_directory(folder, overwrite=True) as staging:
            link_tree(result, staging)
    with new_directory(places.out, overwrite=settings.overwrite) as staging:
        link_tree(places.result(places.stages[-1]), staging)
        _write_history(staging / HISTORY, places)
        _add_to_card(staging / "README.md", places.stages, settings.seed)
    (places.work / SETTINGS_FILE).unlink()  # if this is killed now, no run goes on with the rest
    shutil.rmtree(places.work)


def _write_history(folder: Path, places: Places) -> None:
    """The metrics of all stages, and the settings with the versions that they were trained with."""
    folder.mkdir()
    metrics = [(places.folder(stage) / METRICS_FILE).read_text(encoding="utf-8") for stage in places.stages]
    write_text(folder / METRICS_FILE, "".join(metrics))
    versions = {"ultrafuser": ultrafuser.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    write_json(folder / SETTINGS_FILE, read_json(places.work / SETTINGS_FILE) | {"versions": versions})


def _add_to_card(card: Path, stages: Sequence[Stage], seed: int) -> None:
    """The model card says how the model was trained, and no longer that it was not."""
    text = card.read_text(encoding="utf-8").replace(UNTRAINED, "") if card.exists() else ""
    rows = [
        f"| {stage.name} | {stage.moves} | {stage.steps} | {stage.per_domain} | {stage.learning_rate:g}, {stage.schedule} |"
        for stage in stages
    ]
    table = ["| stage | moves | steps | examples per domain | learning rate |", "|---|---|---|---|---|", *rows]
    about = f"AdamW, seed {seed}. Metrics and all settings: `{HISTORY}/`."
    write_text(card, "\n".join([text.rstrip(), "", "## Training", "", *table, "", about, ""]))
