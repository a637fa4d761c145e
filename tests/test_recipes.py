"""The shipped recipes: each loads, and says what its issue or the paper says."""

from __future__ import annotations

from pathlib import Path

import pytest

from ultrafuser.config import load_recipe, shipped_recipes
from ultrafuser.errors import UserError
from ultrafuser.schema import PAPER_STAGES, Recipe

NEEDED = {
    "miniworld": (),
    "real-small": ("data.directory",),
    "paper-13b": ("data.train",),
    "qwen2.5-7b": ("data.train",),
    "llama3.1-8b-24gb": ("data.train",),
}


def load(name: str, folder: Path) -> Recipe:
    """The recipe, with empty files as data."""
    (folder / "train").mkdir()
    for file in ("dolly_3k", "evol_code", "gsm8k_train"):
        (folder / "train" / f"{file}.jsonl.gz").touch()
    values = {"data.directory": folder, "data.train": "owner/data"}
    return load_recipe(name, [f"{key}={values[key]}" for key in NEEDED[name]])


@pytest.mark.parametrize("name", NEEDED)
def test_shipped_recipe_loads(name: str, tmp_path: Path) -> None:
    """Catches a recipe that the schema no longer takes, or that is not named as its file."""
    recipe = load(name, tmp_path)
    assert recipe.name == name
    assert [specialist.name for specialist in recipe.specialists] == ["text", "code", "math"] == list(recipe.data.domains)


def test_there_are_no_others() -> None:
    """Catches a recipe that is shipped but not tested here."""
    assert set(shipped_recipes()) == set(NEEDED)


@pytest.mark.parametrize("name", [name for name, keys in NEEDED.items() if keys])
def test_parameters_must_be_given(name: str) -> None:
    """Catches a recipe that starts without its data: it must say which key to give, and nothing else."""
    with pytest.raises(UserError) as caught:
        load_recipe(name)
    examples = {"data.directory": "VALUE", "data.train": "[VALUE,..]"}
    expected = [f"{name}: {key}: must be given, as in {key}={examples[key]}" for key in NEEDED[name]]
    assert str(caught.value) == "\n".join(expected)


def test_paper_recipe_is_the_paper(tmp_path: Path) -> None:
    """Catches settings that differ from the paper's section 3 and its templates."""
    recipe = load("paper-13b", tmp_path)
    assert recipe.train.stages == PAPER_STAGES
    assert [specialist.template for specialist in recipe.specialists] == ["ultralm2", "codellama", "alpaca"]
    assert recipe.fuse.gate_hidden_size == 512


def test_24gb_recipe_trains_only_the_gate(tmp_path: Path) -> None:
    """Catches a stage that would move quantised weights."""
    recipe = load("llama3.1-8b-24gb", tmp_path)
    assert recipe.train.load_in == "4bit" and {stage.moves for stage in recipe.train.stages} == {"gate"}


def test_real_small_is_5m_parameters(tmp_path: Path) -> None:
    """Catches a geometry of another size than the recipe says: counted by hand, table by table."""
    pretrain = load("real-small", tmp_path).pretrain
    assert pretrain and pretrain.vocab_size
    shape, width = pretrain.geometry, pretrain.geometry.hidden_size
    keys_values = width // shape.num_attention_heads * shape.num_key_value_heads
    layer = 2 * width * width + 2 * width * keys_values + 3 * width * shape.intermediate_size + 2 * width
    tables = 2 * pretrain.vocab_size * width
    assert 4.5e6 < tables + shape.num_hidden_layers * layer + width < 5.5e6
