"""`ultrafuser run`: a recipe from its specialists to the report (issue "One model out of three specialists", part 5).

Everything that can be wrong with the output, the data and the specialists is found before anything is written. Then all lies in
one directory (`output.py`), where each step's result appears whole or not at all, so that the same command goes on where the
last one stopped: a step whose result exists is not done again. Each model is judged as soon as it is there.

    recipe.json                              what is being run, and on what
    base/ specialists/<name>/ average/       models that the fused one is compared with, as far as the run makes them
    fused/ model-<stage>/ model/             the fused model: untrained gate, after each stage, the result
    scores/<role>.json                       scores and the answers behind them
    results.json results.md report.html tokens.svg
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from ultrafuser.errors import Attempts
from ultrafuser.evaluate.table import ScoreTable
from ultrafuser.facts import run_facts
from ultrafuser.io import full_disk_interrupts, read_json, user_path, write_json
from ultrafuser.run.judge import judge
from ultrafuser.run.materials import Materials, places
from ultrafuser.run.models import Models
from ultrafuser.run.output import Output
from ultrafuser.run.plan import print_plan
from ultrafuser.run.report import write_results
from ultrafuser.run.sources import look
from ultrafuser.schema import MIXED, Recipe

SECONDS_FILE = "seconds.json"
Result = TypeVar("Result")


def run_recipe(recipe: Recipe, *, dry_run: bool = False, overwrite: bool = False) -> Path:
    """Carry out ``recipe``, or with ``dry_run`` print what it would do; return the output directory.

    With ``overwrite`` an earlier run there is replaced, once this one is complete. Raises `UserError` for mistakes in data,
    specialists or output, and while another run is going on there, and KeyboardInterrupt after Ctrl-C; the same call goes on.
    """
    output = Output(user_path(recipe.output), _reads(recipe), overwrite)
    attempts = Attempts()
    attempts(output.require_usable)
    if dry_run:
        print_plan(recipe, attempts=attempts)
        return output.folder
    disable_progress_bar()  # a bar per loaded file, between ours
    materials, sources = look(recipe, attempts, fetch=True)
    assert materials and sources  # what could not be had is a mistake
    inputs = {"data": materials.digest(), **sources.digests()}
    run = Run(recipe, materials, output.work, Console(stderr=True))
    with output.claimed(recipe.model_dump(mode="json"), inputs), full_disk_interrupts(output.work):
        table = run.carry_out(Models(recipe, materials, sources, output.work, run.step))
        output.publish()
    run.say_where(output.folder, table)
    return output.folder


def _reads(recipe: Recipe) -> list[str]:
    """What of the user's files a run reads; ids of the hub and names of shipped templates are among them."""
    given = [recipe.fuse.template, *(one.path for one in recipe.specialists), *(one.template for one in recipe.specialists)]
    return [*filter(None, given), *places(recipe)]


@dataclass(frozen=True)
class Run:
    """A run at work: its steps fill the directory ``folder``."""

    recipe: Recipe
    materials: Materials
    folder: Path
    console: Console

    def carry_out(self, models: Models) -> ScoreTable:
        """Make and judge every model, then write the results."""
        table, scores = self._new_table(), self.folder / "scores"
        scores.mkdir(exist_ok=True)
        longest = models.sources.longest(self.recipe)
        for one in models.candidates():
            if self.materials.heldout and (self.recipe.evaluation.baselines or not one.baseline):
                judging = partial(judge, one, self.materials, self.recipe, scores, longest)
                for domain, score in self.step(f"judging {one.name}", judging).items():
                    table.add(one.name, domain, score)
        facts = {"recipe": self.recipe.model_dump(mode="json"), "facts": run_facts(self.recipe.seed), "seconds": self._seconds}
        self.step("writing the report", lambda: write_results(self.folder, self.materials, table, self.recipe, facts))
        return table

    def step(self, what: str, do: Callable[[], Result]) -> Result:
        """Do one step, say so, and note how long it took."""
        self.console.print(f"[bold]{what}[/bold]", highlight=False)
        start = time.monotonic()
        result = do()
        spent = self._seconds
        spent[what] = round(spent.get(what, 0.0) + time.monotonic() - start, 1)
        write_json(self.folder / SECONDS_FILE, spent)
        return result

    def say_where(self, folder: Path, table: ScoreTable) -> None:
        """Show the scores, and where everything is now."""
        self.console.print(table.to_rich())
        for remark in table.remarks():
            self.console.print(remark, markup=False, highlight=False)
        report, model = folder / "report.html", folder / "model"
        self.console.print(f"{report}  all results, with answers coloured by specialist", markup=False, soft_wrap=True)
        self.console.print(f"{model}  the fused model: ultrafuser chat {model}", markup=False, soft_wrap=True)
        if self.materials.tasks:
            example = min((task.prompt for task in self.materials.tasks if task.domain == MIXED), key=len)
            self.console.print(f"  it knows the words of its world only; ask it such as: {example}", markup=False, soft_wrap=True)

    @property
    def _seconds(self) -> dict[str, float]:
        """How long each step took, whichever call did it."""
        file = self.folder / SECONDS_FILE
        return read_json(file) if file.exists() else {}

    def _new_table(self) -> ScoreTable:
        domains, accuracy = list(self.recipe.data.domains), bool(self.materials.tasks)
        return ScoreTable(
            "accuracy" if accuracy else "held-out loss (nats per answer token)",
            [*domains, MIXED] if accuracy else domains,
            specialists=[one.name for one in self.recipe.specialists],
            mean_over=domains,
            higher_is_better=accuracy,
            digits=2 if accuracy else 3,
        )
