"""A recipe from the endpoints to the finished data: what ``ultrafuser synth RECIPE.yaml`` does.

OUTPUT/answers.sqlite                        every request and answer, and the topics and items made of them
OUTPUT/data.jsonl, data.parquet, README.md   the data and its card, written when the last step is done
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ultrafuser.endpoints.engine import Engine, LocalEngine
from ultrafuser.endpoints.progress import Progress, show_progress
from ultrafuser.endpoints.store import AnswerStore
from ultrafuser.errors import UserError
from ultrafuser.io import make_directory
from ultrafuser.synth.estimate import Row, estimate
from ultrafuser.synth.pipeline import synthesise
from ultrafuser.synth.publish import publish
from ultrafuser.synth.recipe import SynthRecipe
from ultrafuser.synth.state import State
from ultrafuser.synth.steps.flow import DONE


@dataclass(frozen=True)
class Outcome:
    """How far a run came. ``data`` are the files written, none unless the last step is done."""

    accepted: int
    wanted: int
    spent: float  # USD, by all runs of the store
    data: tuple[Path, ...] = ()


def run_synth(recipe: SynthRecipe, *, until: str = "", rebuild: bool = False) -> Outcome:
    """Run the recipe, or go on with it, up to and with the step ``until``.

    ``rebuild`` makes topics and instructions anew, from the answers there are as far as they fit; so a recipe may be changed.
    Raises `UserError`; everything answered until then is kept, and the same call goes on.
    """
    console = Console(stderr=True)

    def log(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    make_directory(recipe.store.parent)
    with AnswerStore(recipe.store) as store, show_progress(console) as progress:
        if rebuild:
            State(store).clear()
        _claim(store, recipe)
        state = synthesise(recipe, store, _engine(recipe, store, progress), until=until, log=log)
        accepted = sum(count for (_, status), count in state.counts().items() if status == "accepted")
        data: tuple[Path, ...] = ()
        if state.position[0] == DONE:
            log(f"writing {accepted:,} conversations to {recipe.store.parent}")
            data = publish(recipe, store)
        wanted = sum(domain.instructions for domain in recipe.domains.values())
        return Outcome(accepted, wanted, store.spent(), data)


def dry_run(recipe: SynthRecipe) -> list[Row]:
    """What the recipe still has to ask for; asks and writes nothing."""
    if not recipe.store.is_file():
        return estimate(recipe)
    with AnswerStore(recipe.store, read_only=True) as store:
        done = State.exists(store) and State(store).position == (DONE, recipe.wanted)
        return estimate(recipe, store, done=done)


def _engine(recipe: SynthRecipe, store: AnswerStore, progress: Callable[[Progress], None]) -> Engine:
    if recipe.engine == "ray":
        from ultrafuser.endpoints.ray import RayEngine

        return RayEngine(recipe.models, store, budget=recipe.budget, actors=recipe.actors, progress=progress)
    return LocalEngine(recipe.models, store, budget=recipe.budget, concurrency=recipe.concurrency, progress=progress)


def _claim(store: AnswerStore, recipe: SynthRecipe) -> None:
    try:
        store.claim(recipe.identity)
    except UserError as error:
        raise UserError(f"{error}, or --rebuild to make the data anew from the answers that still fit") from None
