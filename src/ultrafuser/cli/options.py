"""Options and arguments that several commands share, and groups of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from ultrafuser.schema import LARGEST_SEED, LoadIn

Specialists = Annotated[list[str], typer.Argument(metavar="SPECIALIST..", help="Directories or hub ids, LoRA adapters too.")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="A directory or hub id, fused or not.")]
Fused = Annotated[Path, typer.Argument(metavar="MODEL", help="The directory of a fused model.")]
Prompt = Annotated[str, typer.Argument(metavar="PROMPT", help="What to ask.")]
Out = Annotated[Path, typer.Option(help="Directory to write.")]
Names = Annotated[str | None, typer.Option(metavar="A,B,..", help="A name for each.", show_default="the last part of each path")]
Template = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEMPLATE",
        help="NAME=TEMPLATE for one specialist (repeat it), or one TEMPLATE for all: a shipped one (alpaca, chatml, codellama, "
        "llama3, plain, ultralm2), a Jinja file, or 'own'.",
        show_default="own",
    ),
]
DataDir = Annotated[Path | None, typer.Option(help="Directory of test data.", show_default="from the hub")]
Recipe = Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a shipped recipe.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY.SUB=VALUE]..", help="Changes to the recipe.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
Seed = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Decides every random number.")]
Tokens = Annotated[int, typer.Option(min=1, help="The longest answer.")]
System = Annotated[str | None, typer.Option(help="A system message.", show_default="none")]


@dataclass(frozen=True)
class Sampling:
    """How an answer is chosen."""

    temperature: Annotated[float | None, typer.Option(min=0, help="0: greedy.", show_default="the model's own")] = None
    top_p: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Sample from the likeliest tokens only, up to this probability.",
            show_default="the model's own",
        ),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=LARGEST_SEED, help="Makes a sampled answer repeatable.", show_default="another each time"),
    ] = None


@dataclass(frozen=True)
class Loading:
    """How models are loaded."""

    dtype: Annotated[Literal["auto", "float32", "bfloat16", "float16"], typer.Option(help="auto: as saved.")] = "auto"
    device: Annotated[str, typer.Option(help="cpu, cuda, mps, ..; auto: the best there is.")] = "auto"
    load_in: Annotated[
        LoadIn | None,
        typer.Option(
            help="Quantise the weights: a half or a quarter of the memory. Needs bitsandbytes.", show_default="not quantised"
        ),
    ] = None
