"""Makes the models of a run one after the other, and says of each what it is judged as."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ultrafuser.errors import UserError
from ultrafuser.model.extract import extract
from ultrafuser.model.fuse import FuseOptions, fuse
from ultrafuser.model.merge import average_merge
from ultrafuser.run.judge import Candidate
from ultrafuser.run.materials import Materials
from ultrafuser.run.pretrain import Pretrainer
from ultrafuser.run.settings import train_settings
from ultrafuser.run.sources import Sources, template_names
from ultrafuser.schema import BASE, Recipe
from ultrafuser.train.places import Places
from ultrafuser.train.run import train

logger = logging.getLogger(__name__)
Step = Callable[[str, Callable[[], Any]], Any]


@dataclass(frozen=True)
class Models:
    """The models of a run below ``folder``; what is there already is not made again.

    Args:
        step: called with what is done and the function that does it.
    """

    recipe: Recipe
    materials: Materials
    sources: Sources
    folder: Path
    step: Step

    def candidates(self) -> Iterator[Candidate]:
        """All models in the table's order, each made when it is its turn."""
        given = [one.given for one in self.sources.specialists]
        if self.recipe.pretrain:
            pretrainer = Pretrainer(self.recipe, self.materials, self.folder)
            yield from self._pretrain(pretrainer)
            given = [str(pretrainer.specialist(name)) for name in self._names]
        fused = self._fuse(given)
        if not self.recipe.pretrain:
            yield from self._specialists(fused)
        yield from self._average(given)
        yield Candidate("fused, untrained gate", "fused", fused)
        yield from self._train(fused)

    @property
    def _names(self) -> list[str]:
        return [one.name for one in self.recipe.specialists]

    def _pretrain(self, pretrainer: Pretrainer) -> Iterator[Candidate]:
        """Base and specialists from scratch."""
        yield Candidate(BASE, BASE, self.step("training the common base", pretrainer.train_base))
        for one in self.recipe.specialists:
            path = self.step(f"training specialist {one.name}", partial(pretrainer.train_specialist, one))
            yield Candidate(one.name, f"specialist-{one.name}", path)

    def _fuse(self, given: list[str]) -> Path:
        out = self.folder / "fused"
        options = FuseOptions(
            templates=template_names(self.recipe),
            gate_hidden_size=self.recipe.fuse.gate_hidden_size,
            dtype=self.recipe.fuse.dtype,
            seed=self.recipe.seed,
        )
        if not out.exists():
            self.step("fusing", lambda: fuse(given, out, names=self._names, options=options))
        return out

    def _specialists(self, fused: Path) -> Iterator[Candidate]:
        """The given specialists as they were fused: with their adapters merged and the recipe's templates."""
        for one, template in zip(self.sources.specialists, self.sources.templates, strict=True):
            folder = self.folder / "specialists" / one.name if one.adapter else one.folder
            if one.adapter and self.recipe.evaluation.baselines and not folder.exists():
                self.step(f"merging {one.name} with its adapter", partial(extract, fused, one.name, folder))
            yield Candidate(one.name, f"specialist-{one.name}", folder, template)

    def _average(self, given: list[str]) -> Iterator[Candidate]:
        """The average merge, if the specialists are alike enough to have one."""
        out, name = self.folder / "average", "average merging"
        if not self.recipe.evaluation.baselines:
            return
        try:
            if not out.exists():
                self.step(name, lambda: average_merge(given, out, names=self._names))
        except UserError as error:
            logger.warning("no average merging: %s", error)
        else:
            yield Candidate(name, "average", out, self.sources.templates[0])

    def _train(self, fused: Path) -> Iterator[Candidate]:
        """The fused model after each stage."""
        out, stages = self.folder / "model", [stage for stage in self.recipe.train.stages if stage.steps]
        training = partial(train, fused, self.materials.train, out, stages=stages, settings=train_settings(self.recipe))
        if not out.exists() or Places(fused, out, stages).published:
            self.step("training the fused model", partial(training, domains=self.materials.domains()))
        for number, stage in enumerate(stages, 1):
            folder = out if number == len(stages) else self.folder / f"model-{stage.name}"
            yield Candidate(f"fused, stage {number}: {stage.name}", f"stage-{stage.name}", folder, baseline=False)
