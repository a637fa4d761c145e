"""Whose is a work directory? It says what made it, so that only the same run goes on in it.

What decides the trained weights is written into ``settings.json``: model, data, stages, decisive settings. Models and data
are known by digests of their content, not by their paths or dates.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from ultrafuser.data.dataset import ConversationDataset
from ultrafuser.errors import UserError
from ultrafuser.io import is_vacant, new_directory, read_json, read_json_object, require_new_directory, write_json
from ultrafuser.train.processes import process_state
from ultrafuser.train.stage import DECISIVE_SETTINGS, Stage, TrainSettings

SETTINGS_FILE = "settings.json"
RUN, VERSIONS = "run", "versions"  # keys there that are no facts: one of its kind for every run, and what it was trained with
SAID_BY_ALL = {"stages", "settings", "data"}  # by the settings of every run, of whatever version


def claim(work: Path, facts: dict[str, Any], *, overwrite: bool) -> None:
    """Make ``work`` the work directory of the run that ``facts`` describe; what such a run left there stays.

    Raises `UserError` where something else than a run lies there and, if ``overwrite`` is not given, where another run left it
    unfinished, naming what differs.
    """
    require_ours(work)
    facts = json.loads(json.dumps(facts))
    left = work / SETTINGS_FILE
    changed = differences(read_facts(left), facts) if left.exists() else []
    if changed and not overwrite:
        raise UserError(
            f"{work}: holds an unfinished run with other settings ({'; '.join(changed)}); "
            "give the same settings to go on, or --overwrite to start anew"
        )
    state = process_state()
    state.wait_for_everyone()
    if state.is_main_process and (changed or not left.exists()):
        with new_directory(work, overwrite=bool(changed)) as staging:  # it appears with its settings: never without, if killed
            write_json(staging / SETTINGS_FILE, {RUN: uuid4().hex, **facts})
    state.wait_for_everyone()


def require_ours(work: Path) -> None:
    """Raise `UserError` if something else than a run lies in ``work``, which no ``overwrite`` means."""
    left = work / SETTINGS_FILE
    if left.is_file():
        settings = read_json(left)
        ours = isinstance(settings, dict) and settings.keys() >= SAID_BY_ALL
    else:
        require_new_directory(work, overwrite=True)
        ours = is_vacant(work)
    if not ours:
        instead = "move it away or choose another output"
        raise UserError(f"{work}: already exists and is no unfinished run, so nothing replaces it; {instead}")


def read_facts(file: Path) -> dict[str, Any]:
    """What ``settings.json`` says of what was run, without which run it was and with what versions."""
    return {name: value for name, value in read_json_object(file).items() if name not in (RUN, VERSIONS)}


def decisive_facts(stages: list[Stage], dataset: ConversationDataset, settings: TrainSettings) -> dict[str, Any]:
    """What decides the outcome of training, apart from the model: JSON values."""
    return {
        "stages": {stage.name: asdict(stage) for stage in stages},
        "settings": {name: getattr(settings, name) for name in DECISIVE_SETTINGS},
        "domains": dataset.domains,
        "data": data_digest(dataset),
        "sharded by FSDP": os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true",  # another format of checkpoints
    }


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """``["stages.gate.steps was 400, is 300", ..]`` for two JSON values."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return [] if old == new else [f"{path} was {old}, is {new}"]
    names = [*old, *(name for name in new if name not in old)]
    return [line for name in names for line in differences(old.get(name), new.get(name), f"{path}.{name}".lstrip("."))]


def data_digest(dataset: ConversationDataset) -> str:
    """Digest of every token, label and domain of a data set."""
    digest = hashlib.sha256()
    for array in (dataset.tokens, dataset.is_answer, dataset.offsets, dataset.domain_ids):
        digest.update(np.ascontiguousarray(array).view(np.uint8).data)
    return digest.hexdigest()[:16]
