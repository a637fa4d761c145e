"""Puts a finished training run in its place: the last stage's result, with its history and a model card that tells of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

import ultrafuser
from ultrafuser.io import new_directory, read_json, write_json, write_text
from ultrafuser.model.card import UNTRAINED
from ultrafuser.train.checkpoint import PREFIX
from ultrafuser.train.claim import SETTINGS_FILE, VERSIONS, differences, read_facts
from ultrafuser.train.places import RESULT, Places
from ultrafuser.train.result import HISTORY, is_linked, link_tree
from ultrafuser.train.stage import Stage, TrainSettings
from ultrafuser.train.trainer import METRICS_FILE


def publish(places: Places, settings: TrainSettings) -> None:
    """Write the output of a run whose stages are all done, and the results that are to be kept. The work directory stays.

    Raises `UserError` for what has come to lie in their places in the meantime.
    """
    for result, folder in places.kept.items():
        if is_linked(result, folder):
            continue
        with new_directory(folder, overwrite=settings.overwrite) as staging:
            link_tree(result, staging)
    with new_directory(places.out, overwrite=settings.overwrite) as staging:
        link_tree(places.result(places.stages[-1]), staging)
        _write_history(staging / HISTORY, places)
        _add_to_card(staging / "README.md", places.stages, settings.seed)


def is_published(places: Places, facts: dict[str, Any]) -> bool:
    """Has the run that ``facts`` describe been killed when all but tidying up was done?"""
    said = places.out / HISTORY / SETTINGS_FILE
    return places.published and not differences(read_facts(said), json.loads(json.dumps(facts)))


def _write_history(folder: Path, places: Places) -> None:
    """The metrics of all stages, and the settings with the versions that they were trained with."""
    folder.mkdir()
    metrics = [(places.folder(stage) / METRICS_FILE).read_text(encoding="utf-8") for stage in places.stages]
    write_text(folder / METRICS_FILE, "".join(metrics))
    for stage in places.stages:
        _keep_logs(places.folder(stage), folder / stage.name)
    versions = {"ultrafuser": ultrafuser.__version__, "torch": torch.__version__, "transformers": transformers.__version__}
    write_json(folder / SETTINGS_FILE, read_json(places.work / SETTINGS_FILE) | {VERSIONS: versions})


def _keep_logs(work: Path, target: Path) -> None:
    """Copy what trackers have written into a stage's work directory, as TensorBoard does."""
    names = [path.name for path in work.iterdir()]
    ours = shutil.ignore_patterns(METRICS_FILE, SETTINGS_FILE, RESULT, f"{PREFIX}*", ".*")(str(work), names)
    for name in set(names) - ours:
        target.mkdir(exist_ok=True)
        if (work / name).is_dir():
            shutil.copytree(work / name, target / name)
        else:
            shutil.copyfile(work / name, target / name)


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
