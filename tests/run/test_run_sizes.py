"""The figures of a plan against sums by hand and real models."""

from __future__ import annotations

import pytest
from rich.console import Console
from transformers import LlamaConfig

from tiny import tiny_specialist
from ultrafuser.model.configuration_ultrafuser import UltraFuserConfig
from ultrafuser.model.fuse import fuse
from ultrafuser.run.plan import make_plan, print_plan
from ultrafuser.run.settings import train_settings
from ultrafuser.run.sizes import Sizes
from ultrafuser.schema import Recipe
from ultrafuser.train.load import load_model
from ultrafuser.train.moves import moving, set_in_motion

LLAMA = {"vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
LLAMA |= {"num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072}


def recipe_of(paths=("a/a", "b/b"), **sections):
    """A recipe of specialists s0, s1, ..; its data is at hand if it has a file."""
    body = {
        "name": "r",
        "output": "out",
        "specialists": [{"name": f"s{j}", "path": str(path)} for j, path in enumerate(paths)],
        "data": {"train": ["org/chats"], "domains": ["x"], "max_length": 64},
    }
    return Recipe.model_validate(body | sections)


def test_three_llamas_in_4bit_keep_their_tables_whole():
    """Catches tables, norms or gate that are counted as quantised: the difference between 13 and 18 GB on a 24 GB card."""
    stage = {"name": "gate", "moves": "gate", "steps": 1, "per_domain": 1}
    recipe = recipe_of(["a/a", "b/b", "c/c"], train={"load_in": "4bit", "mixed_precision": "bf16", "stages": [stage]})
    fused = UltraFuserConfig(specialists=[LlamaConfig(**LLAMA).to_dict()] * 3, gate_hidden_size=512)
    sizes = Sizes(recipe, fused, 2, [2, 2, 2])
    needs = sizes.needs(recipe.train.stages[0])
    linear = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    tables, norms = 2 * 128256 * 4096, 65 * 4096
    assert sizes.specialist(0) == linear + tables + norms == 8_030_261_248
    gate = sizes.total()[1]
    assert needs.parameters == gate
    assert needs.memory == 3 * (linear * (0.5 + 4 / 64) + 2 * (tables + norms)) + 16 * gate
    assert 17.7e9 < needs.memory < 18.5e9


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    """Two tiny unlike specialists, and what is fused from them."""
    folder = tmp_path_factory.mktemp("sizes")
    paths = [
        tiny_specialist(folder / "a"),
        tiny_specialist(folder / "b", "qwen2", seed=1, template="inst", hidden_size=48, tie=True),
    ]
    return paths, fuse(paths, folder / "fused")


@pytest.mark.parametrize("rank", [4, 16])
@pytest.mark.parametrize("moves", ["gate", "lora", "all"])
def test_parameters_and_memory_are_those_of_the_stage(fused, moves, rank, tmp_path):
    """Catches low-rank updates whose number does not depend on the rank, and bytes of what moves counted as frozen."""
    paths, folder = fused
    (tmp_path / "d.jsonl").write_text('{"domain": "x", "prompt": "q", "response": "r"}\n')
    data = {"train": [str(tmp_path / "d.jsonl")], "domains": ["x"], "max_length": 64}
    stage = {"name": "one", "moves": moves, "steps": 1, "per_domain": 1, "lora_rank": rank}
    recipe = recipe_of(paths, data=data, train={"stages": [stage], "mixed_precision": "bf16"})
    (planned,) = recipe.train.stages
    model = set_in_motion(load_model(folder, planned, train_settings(recipe)), planned)
    trained = moving(model)
    frozen = [one for name, one in model.named_parameters() if name not in trained]
    needs = make_plan(recipe).sizes.needs(planned)
    assert needs.parameters == sum(one.numel() for one in trained.values())
    held = sum(one.numel() * one.itemsize for one in frozen)
    assert needs.memory == held + 16 * needs.parameters


def test_a_hub_that_does_not_answer_is_asked_once_and_told(monkeypatch, capsys):
    """Catches a plan without memory and disk that does not say why, and a wait for every specialist."""
    asked = []

    def fail(repository, revision):
        asked.append(repository)
        raise OSError("We couldn't connect") from ConnectionError("no route")

    monkeypatch.setattr("ultrafuser.run.plan.AutoConfig.from_pretrained", fail)
    print_plan(recipe_of(), Console(width=200))
    said = capsys.readouterr().out
    assert "disk are not known, since the configuration of a/a cannot be had: the hub cannot be reached" in said
    assert asked == ["a/a"]
