"""Where a run's results go: ``OUT``, which appears complete at the very end, and until then ``OUT.work`` beside it.

So an unfinished run is gone on with, and a finished one, that ``--overwrite`` replaces, is there until the new one is complete.
One process at a time works there.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultrafuser.errors import UserError
from ultrafuser.io import is_vacant, make_directory, read_json, require_creatable, require_new, write_json
from ultrafuser.lock import only_one

RUN_FILE = "recipe.json"  # in every run's directory: what is being run, and on what
INSTEAD = "choose another output=.. or give --overwrite"


@dataclass(frozen=True)
class Output:
    """The directory of a run, and what is done with it.

    Args:
        folder: where the results go.
        reads: what the run reads, which nothing may replace.
        overwrite: may an earlier run there be replaced?
    """

    folder: Path
    reads: Sequence[Path | str] = ()
    overwrite: bool = False

    @property
    def work(self) -> Path:
        """Where everything lies until it is complete."""
        return self.folder.with_name(f"{self.folder.name}.work")

    def require_usable(self) -> None:
        """Raise `UserError` unless the run may have this output: it replaces runs only, and them only if it was said."""
        self._require_replaceable()
        _require_run_or_nothing(self.work, self.reads)
        require_creatable(self.work)

    @contextmanager
    def claimed(self, recipe: dict[str, Any], inputs: dict[str, str]) -> Iterator[None]:
        """The work directory for this run alone, in the block; what the same run, interrupted, left there stays.

        What another unfinished run left there is removed if the run may overwrite; else it is a `UserError`, as is a run that is
        going on there.

        Args:
            recipe: what is run, as JSON values.
            inputs: digests of what it is run on.
        """
        make_directory(self.folder.parent)
        with only_one("run", self.folder):
            self.require_usable()  # once more: another run may just have ended
            self._claim({"recipe": recipe, "inputs": inputs})
            yield

    def publish(self) -> None:
        """Put the complete run in its place; only then is the run that was there removed. Anything else is a `UserError`."""
        try:
            self._require_replaceable()
        except UserError:
            stays = f"something came there meanwhile, so the complete run stays in {self.work}"
            raise UserError(f"{self.folder}: {stays}; move {self.folder} away and give the same command again") from None
        for lock in self.work.glob(".*.lock"):  # of steps that were killed at their very end
            lock.unlink()
        old = self.folder.with_name(f".{self.folder.name}.old")
        if self.folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.rename(self.folder, old)
        os.rename(self.work, self.folder)
        shutil.rmtree(old, ignore_errors=True)

    def _claim(self, facts: dict[str, dict[str, Any]]) -> None:
        file = self.work / RUN_FILE
        if file.exists() and (changed := _changed(read_json(file), facts)):
            if not self.overwrite:
                other = f"holds an unfinished run with other {', '.join(changed)}"
                raise UserError(f"{self.work}: {other}; give what it was given to go on, {INSTEAD}")
            shutil.rmtree(self.work)
        self.work.mkdir(parents=True, exist_ok=True)
        write_json(file, facts)

    def _require_replaceable(self) -> None:
        _require_run_or_nothing(self.folder, self.reads)
        if not self.overwrite and _is_run(self.folder):
            raise UserError(f"{self.folder}: already holds a run; {INSTEAD}")


def _is_run(folder: Path) -> bool:
    return (folder / RUN_FILE).is_file()


def _require_run_or_nothing(folder: Path, reads: Sequence[Path | str]) -> None:
    """Raise `UserError` for somebody else's files, and for what is or holds something that is read."""
    require_new(folder, overwrite=True, inputs=reads)
    if not _is_run(folder) and not is_vacant(folder):
        raise UserError(f"{folder}: already exists and is no run's output, so nothing replaces it; choose another output=..")


def _changed(old: dict[str, dict[str, Any]], new: dict[str, dict[str, Any]]) -> list[str]:
    """What of the recipe and of its inputs is not what it was."""
    parts = ((old.get(part, {}), new[part]) for part in new)
    return [key for before, now in parts for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
