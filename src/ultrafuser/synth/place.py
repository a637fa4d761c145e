"""Where a synthesis is: its recipe, its output directory and the store in it all stand for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ultrafuser.config import read_recipe
from ultrafuser.errors import UserError
from ultrafuser.io import is_directory, is_file, user_path
from ultrafuser.synth.recipe import SynthRecipe


def find_store(place: str | Path, overrides: Sequence[str] = ()) -> Path:
    """The file of answers of a recipe (a file or the name of a shipped one), of an output directory, or given itself.

    ``overrides`` are those of the recipe. Raises `UserError` if there is none.
    """
    path = user_path(place)
    if is_directory(path):
        store = path / "answers.sqlite"
    elif path.suffix == ".sqlite":
        store = path
    else:
        store = read_recipe(SynthRecipe, place, overrides).store
    if not is_file(store):
        raise UserError(f"{store}: no such store of answers; run 'ultrafuser synth RECIPE' first")
    return store
