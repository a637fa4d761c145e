"""Where a run's results go: ``OUT``, which appears complete at the very end, and until then ``OUT.work`` beside it.

So an unfinished run is gone on with, and a finished one, that ``--overwrite`` replaces, is there until the new one is complete.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrafuser.errors import UserError
from ultrafuser.io import read_json, require_creatable, require_new, write_json

RUN_FILE = "recipe.json"  # in every run's directory: what is being run, and on what
INSTEAD = "choose another output=.. or give --overwrite"


@dataclass(frozen=True)
class Output:
    """The directory of a run, and what is done with it."""

    folder: Path

    @property
    def work(self) -> Path:
        """Where everything lies until it is complete."""
        return self.folder.with_name(f"{self.folder.name}.work")

    def require_usable(self, reads: Iterable[Path | str], *, overwrite: bool) -> None:
        """Raise `UserError` unless a run that reads ``reads`` may have this output; ``overwrite`` replaces runs only."""
        reads = list(reads)
        _require_run_or_nothing(self.folder, reads)
        _require_run_or_nothing(self.work, reads)
        if not overwrite and _is_run(self.folder):
            raise UserError(f"{self.folder}: already holds a run; {INSTEAD}")
        require_creatable(self.work)

    def claim(self, recipe: dict[str, Any], inputs: dict[str, str], *, overwrite: bool) -> None:
        """Take the work directory; what the same run, interrupted, left there stays.

        Args:
            recipe: what is run, as JSON values.
            inputs: digests of what it is run on.
            overwrite: remove what another unfinished run left there; without it that is a `UserError`.
        """
        file = self.work / RUN_FILE
        if file.exists() and (changed := _changed(read_json(file), {"recipe": recipe, "inputs": inputs})):
            if not overwrite:
                other = f"holds an unfinished run with other {', '.join(changed)}"
                raise UserError(f"{self.work}: {other}; give what it was given to go on, {INSTEAD}")
            shutil.rmtree(self.work)
        self.work.mkdir(parents=True, exist_ok=True)
        write_json(file, {"recipe": recipe, "inputs": inputs})

    def publish(self) -> None:
        """Put the complete run in its place; only then is the one that was there removed."""
        old = self.folder.with_name(f".{self.folder.name}.old")
        if self.folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.rename(self.folder, old)
        os.rename(self.work, self.folder)
        shutil.rmtree(old, ignore_errors=True)


def _is_run(folder: Path) -> bool:
    return (folder / RUN_FILE).is_file()


def _require_run_or_nothing(folder: Path, reads: list[Path | str]) -> None:
    """Raise `UserError` for somebody else's files, and for what is or holds something that is read."""
    require_new(folder, overwrite=True, inputs=reads)
    if folder.exists() and not _is_run(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: already exists and is no run's output, so nothing replaces it; choose another output=..")


def _changed(old: dict[str, dict[str, Any]], new: dict[str, dict[str, Any]]) -> list[str]:
    """What of the recipe and of its inputs is not what it was."""
    parts = ((old.get(part, {}), new[part]) for part in new)
    return [key for before, now in parts for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
