"""train, run, demo: what takes long."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from ultrafuser.cli import values
from ultrafuser.cli.app import app
from ultrafuser.cli.groups import grouped
from ultrafuser.cli.options import Fused, Out, Overrides, Overwrite, Recipe, Seed
from ultrafuser.schema import PAPER_STAGES, LoadIn, Precision, Stage, TrainSettings
from ultrafuser.train.interrupt import interrupts_remembered


def _papers(field: str) -> str:
    """What the paper's stages have, told as it would be typed: the default."""
    each = [str(getattr(stage, field)) for stage in PAPER_STAGES]
    return ",".join(each if len(set(each)) > 1 else each[:1])


@dataclass(frozen=True)
class Stages:
    """The stages: one value for all, or with commas one each."""

    moves: Annotated[
        str | None, typer.Option(metavar="A,B,..", help="A stage each: gate, lora or all.", show_default=_papers("moves"))
    ] = None
    steps: Annotated[str | None, typer.Option(metavar="N,..", help="Per stage; 0 skips it.", show_default=_papers("steps"))] = (
        None
    )
    per_domain: Annotated[
        str | None,
        typer.Option(metavar="N,..", help="Examples of every domain in a batch.", show_default=_papers("per_domain")),
    ] = None
    learning_rate: Annotated[
        str | None, typer.Option(metavar="X,..", help="Highest learning rate.", show_default=_papers("learning_rate"))
    ] = None
    schedule: Annotated[
        str | None, typer.Option(metavar="NAME,..", help="cosine, linear, constant, ..", show_default=_papers("schedule"))
    ] = None

    def read(self) -> list[Stage]:
        """The stages that were typed. Raises `UserError`."""
        return values.stages_for(
            self.moves,
            steps=values.split("--steps", self.steps, int),
            per_domain=values.split("--per-domain", self.per_domain, int),
            learning_rate=values.split("--learning-rate", self.learning_rate, float),
            schedule=values.split("--schedule", self.schedule),
        )


@dataclass(frozen=True)
class Settings:
    """All stages."""

    seed: Seed = TrainSettings.seed
    max_length: Annotated[int, typer.Option(min=1, help="Longer conversations are cut at a turn.")] = TrainSettings.max_length
    load_in: Annotated[LoadIn | None, typer.Option(help="Quantise frozen specialists.", show_default="not quantised")] = None
    micro_batch_size: Annotated[int, typer.Option(min=1, help="Examples in memory at once, per process.")] = (
        TrainSettings.micro_batch_size
    )
    mixed_precision: Annotated[Precision, typer.Option(help="auto: bf16 on a GPU.")] = TrainSettings.mixed_precision
    gradient_checkpointing: Annotated[bool, typer.Option("--gradient-checkpointing", help="Less memory, slower.")] = False
    save_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = TrainSettings.save_every
    keep_stages: Annotated[bool, typer.Option("--keep-stages", help="Keep each stage's result, as OUT-STAGE.")] = False
    report_to: Annotated[str | None, typer.Option(metavar="A,B,..", help="wandb, tensorboard, ..", show_default="none")] = None

    def read(self, *, overwrite: bool) -> TrainSettings:
        """The settings that were typed. Raises `UserError`."""
        trackers: list[str] | None = values.split("--report-to", self.report_to)
        typed: dict[str, Any] = vars(self) | {"report_to": tuple(trackers or ()), "overwrite": overwrite}
        return TrainSettings(**typed)


@app.command()
@interrupts_remembered()
@grouped
def train(
    model: Fused,
    data: Annotated[
        list[str], typer.Option(help="JSONL or Parquet file or hub dataset (owner/name@revision:split); repeat it for several.")
    ],
    out: Out,
    domains: Annotated[
        str | None, typer.Option(metavar="A,B,..", help="The domains that are balanced.", show_default="those in the data")
    ] = None,
    overwrite: Overwrite = False,
    *,
    stages: Stages,
    settings: Settings,
) -> None:
    """Train a fused model: by default the paper's two stages, the gate alone, then everything.

    The same command again goes on where an interrupted one ended.

    Example: `ultrafuser train fused --data train.jsonl --out trained --steps 400,5000 --per-domain 64,32`
    """
    names: list[str] | None = values.split("--domains", domains)
    chosen, common = stages.read(), settings.read(overwrite=overwrite)
    from ultrafuser.train.run import train  # loads torch, now that what was typed is right

    print(f"wrote {train(model, data, out, stages=chosen, settings=common, domains=names)}")


@app.command()
@interrupts_remembered()
def run(
    recipe: Recipe,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the plan: parameters, steps, memory, disk.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Carry out a recipe: fuse, train, evaluate, report.

    Example: `ultrafuser run recipes/real-small.yaml data.directory=DIR train.stages.0.steps=100 --dry-run`
    """
    from ultrafuser.config import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    from ultrafuser.run.recipe import run_recipe

    run_recipe(loaded, dry_run=dry_run, overwrite=overwrite)


@app.command()
@interrupts_remembered()
def demo(
    out: Out = Path("runs/demo"),
    seed: Seed = 0,
    fast: Annotated[bool, typer.Option("--fast", help="A few steps only: to see it run, not to see it learn.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Train three tiny specialists, fuse them, train both stages, compare and report. Takes minutes on a laptop.

    Example: `ultrafuser demo --out runs/demo`
    """
    from ultrafuser.run.demo import run_demo

    run_demo(out, seed=seed, fast=fast, overwrite=overwrite)
