"""`ultrafuser run --dry-run`: what a recipe will do and need, from the configurations alone; no weights are read.

Memory counts weights, gradients and AdamW's two moments; activations come on top (they depend on micro-batch and length, and
gradient checkpointing makes them small). Token counts are estimates: a word of the generated world is a token, elsewhere
3.5 characters are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from transformers import CONFIG_MAPPING, AutoConfig

from ultrafuser import hub
from ultrafuser.data.conversations import Conversation
from ultrafuser.errors import UserError
from ultrafuser.miniworld import language
from ultrafuser.model.configuration_ultrafuser import SUPPORTED_ARCHITECTURES, UltraFuserConfig
from ultrafuser.model.modeling_ultrafuser import UltraFuserForCausalLM
from ultrafuser.run.materials import gather
from ultrafuser.schema import Recipe, Stage, names_file

CHARACTERS_PER_TOKEN = 3.5
WEIGHT_BYTES = {"4bit": 0.55, "8bit": 1.05}  # quantisation constants included
TRAINED_BYTES = 4 + 4 + 8  # float32 weight and gradient, two float32 moments
CHECKPOINT_BYTES = 4 + 8  # of a moving parameter: weight and moments
LORA_SHARE = 0.01  # of the specialists' parameters, about, at rank 16


@dataclass(frozen=True)
class Sizes:
    """Parameter counts of the fused model, and bytes of one weight of it on disk."""

    specialists: list[int]
    fused: int
    gate: int
    weight_bytes: int

    def moving(self, stage: Stage) -> int:
        """How many parameters a stage trains."""
        body = self.fused - self.gate
        return {"gate": self.gate, "lora": self.gate + round(body * LORA_SHARE), "all": self.fused}[stage.moves]


def print_plan(recipe: Recipe, console: Console | None = None) -> None:
    """Print the plan of ``recipe``. Raises `UserError` where the recipe cannot work."""
    console = console or Console()
    console.print(f"[bold]{recipe.name}[/bold] {recipe.description}", highlight=False)
    sizes = _sizes(recipe)
    data = _data(recipe)
    for line in (*_models(recipe, sizes), *_data_lines(recipe, data)):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(_stages(recipe, sizes, _mean_tokens(recipe, data)))
    if sizes:
        console.print(
            f"memory: of each device, activations apart; disk: about {_gigabytes(_disk(recipe, sizes))} below {recipe.output}",
            highlight=False,
            soft_wrap=True,
        )


def _sizes(recipe: Recipe) -> Sizes | None:
    """Counted on the meta device; None if some specialist's configuration is not at hand (a hub id without a network)."""
    own = [_config(recipe, one.path) for one in recipe.specialists]
    if any(config is None for config in own):
        return None
    config = UltraFuserConfig(specialists=[one.to_dict() for one in own], gate_hidden_size=recipe.fuse.gate_hidden_size)
    with torch.device("meta"):
        model = UltraFuserForCausalLM(config)
    gate = sum(parameter.numel() for parameter in model.model.gate.parameters())
    fused = sum(parameter.numel() for parameter in model.parameters())
    shares = [_share(model, config, j) for j in range(len(own))]
    dtype = recipe.fuse.dtype or str(own[0].dtype or "float32").removeprefix("torch.")
    return Sizes(shares, fused, gate, 4 if dtype == "float32" else 2)


def _share(model: Any, config: UltraFuserConfig, j: int) -> int:
    depths = model.model.depths
    layers = model.model.layers[sum(depths[:j]) : sum(depths[: j + 1])]
    tables = (1 if config.tie_word_embeddings else 2) * int(config.vocab_size or 0) * model.model.widths[j]
    return tables + sum(parameter.numel() for parameter in layers.parameters())


def _config(recipe: Recipe, path: str | None) -> Any:
    if recipe.pretrain:
        shape = recipe.pretrain.geometry.model_dump()
        return CONFIG_MAPPING[shape.pop("model_type")](
            vocab_size=recipe.pretrain.vocab_size or len(language.vocabulary()), **shape
        )
    assert path is not None
    try:
        place, revision = (Path(path).expanduser(), None) if names_file(path) else hub.split_revision(path)
        config = AutoConfig.from_pretrained(place, revision=revision or "main")
    except (OSError, ValueError) as error:
        if names_file(path):
            raise UserError(f"{path}: its config.json cannot be read ({str(error).splitlines()[0]})") from None
        return None
    if config.model_type not in SUPPORTED_ARCHITECTURES:
        raise UserError(f"{path}: architecture '{config.model_type}' is not one of {', '.join(SUPPORTED_ARCHITECTURES)}")
    return config


def _models(recipe: Recipe, sizes: Sizes | None) -> Iterator[str]:
    for j, one in enumerate(recipe.specialists):
        count = f"{_count(sizes.specialists[j])} parameters" if sizes else "parameters unknown, its configuration is not at hand"
        origin = one.path or "trained from scratch"
        yield f"  specialist {one.name}: {origin}, {count}"
    if recipe.pretrain:
        base, own = recipe.pretrain.base, recipe.pretrain.specialist
        yield f"  from scratch: base {base.steps} steps, then {own.steps} steps each"
    if sizes:
        yield f"  fused: {_count(sizes.fused)} parameters, of which the gate {_count(sizes.gate)}"


def _data(recipe: Recipe) -> Sequence[Conversation] | None:
    """The training conversations; None if some are on the hub, which is not asked for a plan."""
    if not recipe.world and any(not names_file(source) for source in (*recipe.data.train, *recipe.data.heldout)):
        return None
    return gather(recipe).train


def _data_lines(recipe: Recipe, train: Sequence[Conversation] | None) -> Iterator[str]:
    if train is None:
        yield f"  data: {', '.join(recipe.data.train)} (not read for a plan)"
        return
    counts = {name: sum(one.domain == name for one in train) for name in recipe.data.domains}
    yield "  data: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()) + " training conversations"


def _mean_tokens(recipe: Recipe, train: Sequence[Conversation] | None) -> float:
    """Mean tokens of a conversation, the domains weighing the same; the maximum where the data is not at hand."""
    if not train:
        return recipe.data.max_length
    means = []
    for name in recipe.data.domains:
        texts = [" ".join(message["content"] for message in one.messages) for one in train if one.domain == name]
        lengths = [len(text.split()) if recipe.world else len(text) / CHARACTERS_PER_TOKEN for text in texts]
        means.append(sum(min(length, recipe.data.max_length) for length in lengths) / max(len(lengths), 1))
    return sum(means) / len(means)


def _stages(recipe: Recipe, sizes: Sizes | None, tokens: float) -> Table:
    table = Table(box=SIMPLE_HEAD)
    for title in ("stage", "trains", "parameters", "steps", "batch", "tokens", "memory"):
        table.add_column(title, justify="left" if title in ("stage", "trains") else "right")
    for stage in recipe.train.stages:
        batch = stage.per_domain * len(recipe.data.domains)
        table.add_row(
            stage.name,
            stage.moves,
            _count(sizes.moving(stage)) if sizes else "?",
            f"{stage.steps:,}",
            f"{batch}",
            f"{_count(stage.steps * batch * tokens)}",
            _gigabytes(_memory(recipe, sizes, stage)) if sizes else "?",
        )
    return table


def _memory(recipe: Recipe, sizes: Sizes, stage: Stage) -> float:
    moving = sizes.moving(stage)
    frozen_bytes = WEIGHT_BYTES.get(recipe.train.load_in or "", 4 if recipe.train.mixed_precision == "no" else 2)
    return moving * TRAINED_BYTES + (sizes.fused - (moving if stage.moves == "all" else 0)) * frozen_bytes


def _disk(recipe: Recipe, sizes: Sizes) -> float:
    """The fused model, a copy of it per stage that moves the specialists, and the checkpoints of the largest stage."""
    stages = [stage for stage in recipe.train.stages if stage.steps]
    copies = 1 + sum(stage.moves != "gate" for stage in stages)
    kept = max((sizes.moving(stage) for stage in stages), default=0) * CHECKPOINT_BYTES * (recipe.train.keep_checkpoints + 1)
    return sizes.fused * sizes.weight_bytes * copies + kept


def _count(number: float) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.2f} GB"
