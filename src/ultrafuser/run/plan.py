"""`ultrafuser run --dry-run`: what a recipe will do and need. Nothing is written, no weights are read, nothing is fetched.

What is at hand is checked as a run checks it. Of specialists that are on the hub only the configurations are asked for, their
data not at all; then tokens are counted as if every conversation were as long as may be, and parameters without slot tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from transformers import AutoConfig

from ultrafuser import hub
from ultrafuser.errors import Attempts, UserError
from ultrafuser.hub import quiet_hub
from ultrafuser.io import user_path
from ultrafuser.miniworld import language
from ultrafuser.model.adapters import is_adapter, read_adapter_config
from ultrafuser.model.configuration_ultrafuser import SUPPORTED_ARCHITECTURES, UltraFuserConfig
from ultrafuser.model.fuse import DTYPES
from ultrafuser.model.sources import open_specialist
from ultrafuser.run.materials import Materials, by_domain, token_counts
from ultrafuser.run.scratch import geometry
from ultrafuser.run.sizes import Sizes
from ultrafuser.run.sources import Sources, look, specialist_at_hand
from ultrafuser.schema import Recipe, Specialist

MEASURED = 300  # conversations of every domain, evenly spread, that the mean number of tokens is taken from


class NotAtHand(Exception):
    """A configuration that cannot be had, and why."""


@dataclass(frozen=True)
class Plan:
    """What is known beforehand; None where it is not at hand. ``missing`` says why no sizes are known."""

    recipe: Recipe
    materials: Materials | None
    sources: Sources | None
    sizes: Sizes | None
    missing: str = ""

    def domains(self) -> list[str]:
        """The domains of the fused model's training."""
        return self.materials.domains() if self.materials else list(self.recipe.data.domains)

    def mean_tokens(self) -> float:
        """Mean tokens of a training example, the domains weighing the same, as in a batch."""
        if not (self.materials and self.sources):
            return self.recipe.data.max_length
        longest, means = self.sources.longest(self.recipe), []
        for group in by_domain(self.materials.train).values():
            spread = group[:: max(1, len(group) // MEASURED)]
            counts = [n for n in token_counts(spread, self.sources.lineup.tokenizer, longest) if n]
            means.append(sum(counts) / max(1, len(counts)))
        return sum(means) / len(means)


def print_plan(recipe: Recipe, console: Console | None = None, attempts: Attempts | None = None) -> None:
    """Print the plan of ``recipe``. Raises `UserError` where the recipe cannot work, or the ``attempts`` before have failed."""
    console = console or Console()
    plan = make_plan(recipe, attempts)
    console.print(f"[bold]{recipe.name}[/bold] {escape(recipe.description)}", highlight=False, soft_wrap=True)
    for line in (*_models(plan), _data(plan)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(_stages(plan))
    if plan.sizes:
        kept, passing = _gigabytes(plan.sizes.kept()), _gigabytes(plan.sizes.passing())
        line = f"memory: of each device, activations apart; disk: {recipe.output} will take {kept}, and {passing} more on the way"
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def make_plan(recipe: Recipe, attempts: Attempts | None = None) -> Plan:
    """Find out what can be known of ``recipe``. Raises `UserError` as `print_plan` does."""
    materials, sources = look(recipe, attempts or Attempts(), fetch=False)
    try:
        return Plan(recipe, materials, sources, _sizes(recipe, sources))
    except NotAtHand as error:
        return Plan(recipe, materials, sources, None, str(error))


def _sizes(recipe: Recipe, sources: Sources | None) -> Sizes:
    """Raises `NotAtHand` for the first specialist whose configuration cannot be had."""
    if sources:
        fused, own = sources.fused_config(recipe), [one.dtype.itemsize for one in sources.specialists]
        merged = [j for j, one in enumerate(sources.specialists) if one.adapter]
        return Sizes(recipe, fused, fused.dtype.itemsize, own, merged)
    configs = [_config(recipe, one) for one in recipe.specialists]
    fused = UltraFuserConfig(
        specialists=[config.to_dict() for config in configs],
        gate_hidden_size=recipe.fuse.gate_hidden_size,
        tie_word_embeddings=all(config.tie_word_embeddings for config in configs),
    )
    own = [_itemsize(config.dtype) for config in configs]
    return Sizes(recipe, fused, _itemsize(recipe.fuse.dtype) if recipe.fuse.dtype else max(own), own)


def _itemsize(dtype: Any) -> int:
    """Bytes of a weight, given a torch dtype, its name, or None for float32."""
    return DTYPES.get(str(dtype or "float32").removeprefix("torch."), DTYPES["float32"]).itemsize


def _config(recipe: Recipe, one: Specialist) -> Any:
    """A specialist's configuration. Raises `NotAtHand` if it cannot be had."""
    if recipe.pretrain:
        return geometry(recipe, recipe.pretrain.vocab_size or len(language.vocabulary()))
    given = one.path or ""
    if specialist_at_hand(given):
        return open_specialist(given, one.name).config
    folder = user_path(given)
    if is_adapter(folder):
        settings = read_adapter_config(folder)
        given = "@".join(filter(None, (settings["base_model_name_or_path"], settings.get("revision"))))
    repository, revision = hub.split_revision(given)
    try:
        with quiet_hub():
            config = AutoConfig.from_pretrained(repository, revision=revision or "main")
    except (OSError, ValueError) as error:
        raise NotAtHand(f"the configuration of {given} cannot be had: {hub.reason(error)}") from None
    if config.model_type not in SUPPORTED_ARCHITECTURES:
        raise UserError(f"{given}: architecture '{config.model_type}' is not one of {', '.join(SUPPORTED_ARCHITECTURES)}")
    return config


def _models(plan: Plan) -> Iterator[str]:
    recipe, sizes = plan.recipe, plan.sizes
    for j, one in enumerate(recipe.specialists):
        count = f", {_count(sizes.specialist(j))} parameters" if sizes else ""
        yield f"  specialist {one.name}: {one.path or 'trained from scratch'}{count}"
    if recipe.pretrain:
        base, own = recipe.pretrain.base, recipe.pretrain.specialist
        yield f"  from scratch: base {base.steps} steps, then {own.steps} steps each"
    if sizes:
        total, gate = sizes.total()
        yield f"  fused: {_count(total)} parameters, of which the gate {_count(gate)}"
    else:
        yield f"  fused: parameters, memory and disk are not known, since {plan.missing}"


def _data(plan: Plan) -> str:
    if plan.materials is None:
        return f"  data: {', '.join(plan.recipe.data.train)} (not read for a plan)"
    counts = {name: len(group) for name, group in by_domain(plan.materials.train).items()}
    return "  data: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()) + " training conversations"


def _stages(plan: Plan) -> Table:
    table = Table(box=SIMPLE_HEAD)
    for title in ("stage", "trains", "parameters", "steps", "batch", "tokens", "memory"):
        table.add_column(title, justify="left" if title in ("stage", "trains") else "right")
    tokens = plan.mean_tokens()
    for stage in plan.recipe.train.stages:
        batch = stage.per_domain * len(plan.domains())
        needs = plan.sizes.needs(stage) if plan.sizes else None
        table.add_row(
            stage.name,
            stage.moves,
            _count(needs.parameters) if needs else "?",
            f"{stage.steps:,}",
            f"{batch}",
            f"{_count(stage.steps * batch * tokens)}",
            _gigabytes(needs.memory) if needs else "?",
        )
    return table


def _count(number: float) -> str:
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.2f} GB"
