"""`ultrafuser run`: a recipe from its specialists to the report (issue "One model out of three specialists", part 5).

Everything lies in one directory, ``recipe.output``. Each step's result appears there whole or not at all, so the same command
goes on where the last one stopped: a step whose result exists is not done again.

    recipe.json                              what is being run
    base/ specialists/<name>/ average/       models that the fused one is compared with
    fused/ model-<stage>/ model/             the fused model: untrained gate, after each stage, the result
    scores/<model>.json                      scores and the answers behind them
    results.json results.md report.html tokens.svg
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from ultrafuser.errors import UserError
from ultrafuser.evaluate.table import ScoreTable
from ultrafuser.facts import run_facts
from ultrafuser.io import read_json, require_new, write_json
from ultrafuser.model.fuse import FuseOptions, fuse
from ultrafuser.model.merge import average_merge
from ultrafuser.run.judge import judge
from ultrafuser.run.materials import MIXED, Materials, gather
from ultrafuser.run.plan import print_plan
from ultrafuser.run.pretrain import Pretrainer
from ultrafuser.run.report import write_results
from ultrafuser.run.settings import train_settings, train_stages
from ultrafuser.schema import Recipe
from ultrafuser.train.run import train

RECIPE_FILE, RESULTS_FILE, SECONDS_FILE = "recipe.json", "results.json", "seconds.json"
UNTRAINED, AVERAGE = "fused, untrained gate", "average merging"
logger = logging.getLogger(__name__)
Result = TypeVar("Result")


def run_recipe(recipe: Recipe, *, dry_run: bool = False, overwrite: bool = False) -> Path:
    """Carry out ``recipe``, or with ``dry_run`` print what it would do; return the output directory.

    Raises `UserError` for mistakes in data, specialists or output, and KeyboardInterrupt after Ctrl-C; the same call goes on.
    """
    console = Console(stderr=True)
    if dry_run:
        print_plan(recipe)
        return Path(recipe.output)
    disable_progress_bar()  # a bar per loaded file, between ours
    run = Run(recipe, Path(recipe.output), console)
    run.claim(overwrite)
    run.materials = gather(recipe)
    paths = run.make_models()
    table = run.judge_all(paths)
    data = {"recipe": recipe.model_dump(mode="json"), "facts": run_facts(recipe.seed), "seconds": run.seconds}
    run.step("writing the report", lambda: write_results(run.folder, run.materials, table, recipe, data))
    console.print(table.to_rich())
    console.print(f"{run.folder / 'report.html'}  all results, with answers coloured by specialist", soft_wrap=True)
    console.print(f"{run.folder / 'model'}  the fused model: ultrafuser chat {run.folder / 'model'}", soft_wrap=True)
    return run.folder


@dataclass
class Run:
    """A run's directory, and the steps that fill it."""

    recipe: Recipe
    folder: Path
    console: Console
    materials: Materials = field(default_factory=lambda: Materials([], [], []))

    def claim(self, overwrite: bool) -> None:
        """Take the output directory: a new one, or that of the same recipe's unfinished run. Raises `UserError` otherwise."""
        mine = self.recipe.model_dump(mode="json")
        file = self.folder / RECIPE_FILE
        if not file.exists():
            require_new(self.folder)  # somebody else's files are never overwritten, whatever was asked
            self.folder.mkdir(parents=True, exist_ok=True)
        elif overwrite:
            shutil.rmtree(self.folder)
            self.folder.mkdir()
        elif (self.folder / RESULTS_FILE).exists():
            raise UserError(f"{self.folder}: holds a finished run; choose another output=.. or give --overwrite")
        elif changed := sorted(key for key, value in read_json(file).items() if mine.get(key) != value):
            raise UserError(
                f"{self.folder}: holds an unfinished run with other {', '.join(changed)}; "
                "give the same recipe to go on, choose another output=.. or give --overwrite"
            )
        write_json(file, mine)

    @property
    def seconds(self) -> dict[str, float]:
        """How long each step took, whichever call did it."""
        file = self.folder / SECONDS_FILE
        return read_json(file) if file.exists() else {}

    def step(self, what: str, do: Callable[[], Result]) -> Result:
        """Do one step, say so, and note how long it took."""
        self.console.print(f"[bold]{what}[/bold]", highlight=False)
        start = time.monotonic()
        result = do()
        spent = self.seconds
        spent[what] = round(spent.get(what, 0.0) + time.monotonic() - start, 1)
        write_json(self.folder / SECONDS_FILE, spent)
        return result

    def make_models(self) -> dict[str, Path]:
        """All models of the run by the name they have in the table, in its order."""
        paths: dict[str, Path] = {}
        pretrainer = Pretrainer(self.recipe, self.materials, self.folder)
        if self.recipe.pretrain:
            paths["base"] = self.step("training the common base", pretrainer.train_base)
        for one in self.recipe.specialists:
            if self.recipe.pretrain:
                paths[one.name] = self.step(f"training specialist {one.name}", lambda one=one: pretrainer.train_specialist(one))  # type: ignore[misc]
            else:
                paths[one.name] = Path(one.path or "")
        sources = [paths[one.name] for one in self.recipe.specialists]
        return paths | dict(self._average(sources)) | self._fused(sources)

    def _average(self, sources: list[Path]) -> Iterator[tuple[str, Path]]:
        """The average merge, if the specialists are alike enough to have one."""
        out = self.folder / "average"
        if not self.recipe.evaluation.baselines:
            return
        try:
            if not out.exists():
                self.step(AVERAGE, lambda: average_merge(list(map(str, sources)), out, names=self._names()))
            yield AVERAGE, out
        except UserError as error:
            logger.warning("no average merging: %s", error)

    def _fused(self, sources: list[Path]) -> dict[str, Path]:
        fused, model = self.folder / "fused", self.folder / "model"
        if not fused.exists():
            options = FuseOptions(
                templates=self._templates(),
                gate_hidden_size=self.recipe.fuse.gate_hidden_size,
                dtype=self.recipe.fuse.dtype,
                seed=self.recipe.seed,
            )
            self.step("fusing", lambda: fuse(list(map(str, sources)), fused, names=self._names(), options=options))
        stages = [stage for stage in train_stages(self.recipe) if stage.steps]
        if not model.exists():
            train_all: Callable[[], Path] = lambda: train(  # noqa: E731
                fused,
                self.materials.train,
                model,
                stages=stages,
                settings=train_settings(self.recipe),
                domains=self.materials.domains(),
            )
            self.step("training the fused model", train_all)
        results = [self.folder / f"model-{stage.name}" for stage in stages[:-1]] + [model]
        named = {
            f"fused, stage {number}: {stage.name}": path
            for number, (stage, path) in enumerate(zip(stages, results, strict=False), 1)
        }
        return {UNTRAINED: fused} | named

    def _names(self) -> list[str]:
        return [one.name for one in self.recipe.specialists]

    def _templates(self) -> list[str] | None:
        """Templates to fuse with; specialists from scratch already have theirs in their tokenizers."""
        if self.recipe.fuse.template:
            return [self.recipe.fuse.template]
        own = [None if self.recipe.pretrain else one.template for one in self.recipe.specialists]
        return [template or "own" for template in own] if any(own) else None

    def judge_all(self, paths: dict[str, Path]) -> ScoreTable:
        """Judge every model; a row each."""
        domains = list(self.recipe.data.domains)
        accuracy = bool(self.materials.tasks)
        table = ScoreTable(
            "accuracy" if accuracy else "held-out loss (nats per answer token)",
            [*domains, MIXED] if accuracy else domains,
            specialists=self._names(),
            mean_over=domains,
            higher_is_better=accuracy,
            digits=2 if accuracy else 3,
        )
        if not self.materials.heldout:
            return table
        (self.folder / "scores").mkdir(exist_ok=True)
        for name, path in paths.items():
            if self.recipe.evaluation.baselines or path.name.startswith("model"):
                for domain, score in self._judge(name, path).items():
                    table.add(name, domain, score)
        return table

    def _judge(self, name: str, path: Path) -> dict[str, Any]:
        file = self.folder / "scores" / f"{path.name}.json"
        return self.step(f"judging {name}", lambda: judge(path, self.materials, self.recipe, file))
