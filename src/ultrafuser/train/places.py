"""Where a training run reads and writes: ``OUT``, complete at the very end, and until then ``OUT.work`` beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ultrafuser.io import has_rests, read_json_object, require_creatable, require_new_directory, require_outside
from ultrafuser.train.claim import RUN, SETTINGS_FILE, require_ours
from ultrafuser.train.result import HISTORY, is_linked
from ultrafuser.train.stage import Stage

RESULT = "model"


@dataclass(frozen=True)
class Places:
    """The directories of a run.

    Args:
        source: the model that is trained.
        out: where the trained one is to be.
        stages: those with steps.
        keep_stages: also keep the results of the stages before the last, as ``OUT-<stage name>``.
    """

    source: Path
    out: Path
    stages: Sequence[Stage]
    keep_stages: bool = False

    @property
    def work(self) -> Path:
        """Where everything lies until the run is complete."""
        return self.out.with_name(f"{self.out.name}.work")

    def folder(self, stage: Stage) -> Path:
        """Work directory of a stage."""
        return self.work / f"{self.stages.index(stage) + 1}-{stage.name}"

    def result(self, stage: Stage) -> Path:
        """What a stage has made; exists only when it is done."""
        return self.folder(stage) / RESULT

    @property
    def kept(self) -> dict[Path, Path]:
        """The results of stages before the last that are to be kept, and where."""
        stages = self.stages[:-1] if self.keep_stages else []
        return {self.result(stage): self.out.with_name(f"{self.out.name}-{stage.name}") for stage in stages}

    @property
    def published(self) -> bool:
        """Is ``OUT`` what came of ``OUT.work``, or of its rests? Then the run was killed before it was tidied up."""
        if not self.out.name:
            return False
        made, left = self.out / HISTORY / SETTINGS_FILE, self.work / SETTINGS_FILE
        if not made.is_file() or not left.is_file():
            return made.is_file() and not self.work.exists() and has_rests(self.work)
        run = read_json_object(left).get(RUN)
        return run is not None and run == read_json_object(made).get(RUN)

    def require_usable(self, data: Iterable[Path], *, overwrite: bool) -> None:
        """Raise `UserError` for a place that cannot be written, or where something would be replaced that is read or not ours.

        A model's directory is copied whole, so nothing may be written into it either.
        """
        inputs = [self.source, *data]
        overwrite = overwrite or self.published  # nothing is written then
        require_new_directory(self.out, overwrite=overwrite, inputs=inputs)  # first: only a place with a name has one beside it
        require_new_directory(self.work, overwrite=True, inputs=inputs)
        require_ours(self.work)  # of which run, `claim` says
        for result, folder in self.kept.items():  # this run may have made it already, before it was killed
            require_new_directory(folder, overwrite=overwrite or is_linked(result, folder), inputs=inputs)
        require_outside(self.out, self.source)
        require_creatable(self.work)
