"""Where a training run reads and writes: ``OUT``, complete at the very end, and until then ``OUT.work`` beside it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ultrafuser.io import require_creatable, require_new_directory, require_outside
from ultrafuser.train.claim import SETTINGS_FILE, require_ours
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

    def require_usable(self, data: Iterable[Path], *, overwrite: bool) -> None:
        """Raise `UserError` for a place that cannot be written, or where something would be replaced that is read or not ours.

        A model's directory is copied whole, so nothing may be written into it either.
        """
        inputs = [self.source, *data]
        # First: only a place with a name has one beside it. Beside a work directory it may be this run's own: `is_published`.
        require_new_directory(self.out, overwrite=overwrite or self._is_trained(), inputs=inputs)
        require_new_directory(self.work, overwrite=True, inputs=inputs)
        require_ours(self.work)  # of which run, `claim` says
        for result, folder in self.kept.items():  # this run may have made it already, before it was killed
            require_new_directory(folder, overwrite=overwrite or is_linked(result, folder), inputs=inputs)
        require_outside(self.out, self.source)
        require_creatable(self.work)

    def _is_trained(self) -> bool:
        return self.out.name != "" and self.work.is_dir() and (self.out / HISTORY / SETTINGS_FILE).is_file()
