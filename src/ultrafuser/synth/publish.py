"""What a synthesis leaves in its output directory: the data, its card, and the note that it was checked for test data."""

from __future__ import annotations

from pathlib import Path

from ultrafuser.decontaminate import write_checked
from ultrafuser.endpoints.store import AnswerStore
from ultrafuser.io import write_text
from ultrafuser.synth.card import render_card
from ultrafuser.synth.export import export
from ultrafuser.synth.recipe import SynthRecipe
from ultrafuser.synth.state import State
from ultrafuser.synth.statistics import Statistics


def publish(recipe: SynthRecipe, store: AnswerStore) -> tuple[Path, ...]:
    """Write ``data.jsonl``, ``data.parquet`` and ``README.md`` from what is accepted so far; returns their paths.

    Raises `UserError` if a file cannot be written; each appears whole or not at all.
    """
    state, statistics = State(store), Statistics.of(recipe.domains)
    for topic in state.topics():
        statistics.add_topic(topic)
    for dropped in state.items("dropped"):
        statistics.add(dropped)
    files = export(state.items("accepted"), recipe.store.parent, also=statistics.add)
    card = recipe.store.parent / "README.md"
    write_text(card, render_card(recipe, statistics, store.totals()))
    if checked := recipe.decontaminate:
        for file in files:
            write_checked(file, {"examples": statistics.total, "test_sets": list(checked.test_sets), "n": checked.n})
    return (*files, card)
