"""synth: instructions and conversations from language models, as training data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from typer.core import TyperGroup

from ultrafuser.cli.app import CommandTable, app
from ultrafuser.cli.options import Overrides, Recipe
from ultrafuser.errors import UserError

if TYPE_CHECKING:
    from ultrafuser.synth.estimate import Row

Place = Annotated[str, typer.Argument(metavar="RECIPE", help="The recipe, or the output directory of its run.")]
Until = Literal["meta_topics", "sub_topics", "instructions", "complicate", "responses"]


class RunUnlessNamed(TyperGroup):
    """`synth RECIPE ..` is short for `synth run RECIPE ..`."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        named = args and (args[0] in self.commands or args[0] in ctx.help_option_names)
        return super().parse_args(ctx, args if named else ["run", *args])


synth = CommandTable(name="synth", cls=RunUnlessNamed, rich_markup_mode="markdown")
app.add_typer(synth)


@synth.callback()
def about() -> None:
    """Make training data with language models: topics, instructions, conversations, checked and balanced.

    `ultrafuser synth RECIPE` is short for `ultrafuser synth run RECIPE`.

    Example: `ultrafuser synth ultrachat2-small models.writer.endpoints.0.base_url=http://localhost:8000/v1 --dry-run`
    """


@synth.command("run")
def run(
    recipe: Recipe,
    overrides: Overrides = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it will take: requests, tokens, cost, time.")] = False,
    until: Annotated[
        Until | None, typer.Option(help="Stop after this step, to look at what came of it.", show_default="the last")
    ] = None,
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="After a change of the recipe: make the data anew from the answers that still fit."),
    ] = False,
) -> None:
    """Run a recipe, or go on with it: the same command goes on after an interruption, and never asks twice what was answered.

    Example: `ultrafuser synth recipe.yaml domains.code.instructions=1000 budget=20`
    """
    from ultrafuser.config import read_recipe
    from ultrafuser.synth import run as synthesis
    from ultrafuser.synth.recipe import SynthRecipe

    loaded = read_recipe(SynthRecipe, recipe, overrides or [])
    if dry_run:
        _print_estimate(synthesis.dry_run(loaded), loaded.unpriced)
        return
    outcome = synthesis.run_synth(loaded, until=until or "", rebuild=rebuild)
    spent = f", ${outcome.spent:,.2f} spent" if outcome.spent or not loaded.unpriced else ""
    print(f"{outcome.accepted:,} of {outcome.wanted:,} conversations{spent}")
    for file in outcome.data:
        print(f"wrote {file}")


@synth.command("report")
def report(
    place: Place,
    out: Annotated[
        Path | None, typer.Option(help="HTML file to write.", show_default="report.html in the output directory")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Count its tokens: a file, directory or hub id.", show_default="words are counted")
    ] = None,
    mapped: Annotated[int, typer.Option(min=0, help="Instructions on the map; 0 leaves it out.")] = 4000,
    embeddings_url: Annotated[
        str | None, typer.Option(help="Endpoint of an embedding model for the map.", show_default="words are compared")
    ] = None,
    embeddings_model: Annotated[
        str | None, typer.Option(help="Its name there; its key is read from OPENAI_API_KEY.", show_default="none")
    ] = None,
) -> None:
    """Write an HTML report: topics, lengths, what was dropped and why, cost, a map; also while a run goes on.

    Example: `ultrafuser synth report runs/ultrachat2-small`
    """
    from ultrafuser.synth.map import Embeddings
    from ultrafuser.synth.place import find_store
    from ultrafuser.synth.report import ReportOptions, write_report
    from ultrafuser.synth.statistics import WORDS, tokens_of

    if (embeddings_url is None) != (embeddings_model is None):
        raise UserError("--embeddings-url and --embeddings-model go together; give both or none")
    embeddings = Embeddings(embeddings_url, embeddings_model) if embeddings_url and embeddings_model else None
    measure = tokens_of(tokenizer) if tokenizer else WORDS
    print(f"wrote {write_report(find_store(place), out, ReportOptions(measure, mapped, embeddings))}")


@synth.command("review")
def review(
    place: Place,
    below: Annotated[
        str, typer.Option(metavar="ID", help="Only this domain or main topic, such as code/003.", show_default="all")
    ] = "",
    samples: Annotated[int, typer.Option(min=0, help="Conversations shown of every sub-topic.")] = 3,
) -> None:
    """Accept, edit or reject topics and samples, one key each; the next run carries the decisions out.

    Example: `ultrafuser synth review runs/ultrachat2-small --below code`
    """
    from rich.console import Console

    from ultrafuser.synth.keyboard import keyboard
    from ultrafuser.synth.place import find_store
    from ultrafuser.synth.review import review as go_through

    console = Console()
    counts = go_through(find_store(place), keyboard(console), console, samples=samples, below=below)
    decided = ", ".join(f"{count} {action}" for action, count in counts.items())
    print(f"decided: {decided or 'nothing'}; the next 'ultrafuser synth run' carries it out")


def _print_estimate(rows: list[Row], unpriced: list[str]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    from ultrafuser.endpoints.progress import duration

    table = Table(Column("step", no_wrap=True))
    for name in ("requests", "answered", "tokens in", "tokens out", "cost", "time"):
        table.add_column(name, justify="right")
    for row in rows:
        tokens = (_short(row.prompt_tokens), _short(row.answer_tokens))
        cost = "–" if row.cost is None else f"${row.cost:,.2f}"
        cells = (f"{row.requests:,}", f"{row.answered:,}", *tokens, cost, duration(row.seconds))
        table.add_row(row.step, *cells, end_section=row is rows[-2])
    Console().print(table)
    if unpriced:
        where = f"{', '.join(unpriced)} (price_input, price_output of the endpoints)"
        print(f"no prices are given for {where}: what is asked there is left out of the cost")
    print("tokens, cost and time are those of what is not answered yet; a tenth is allowed for what is dropped and written anew")


def _short(count: float) -> str:
    """``79.5M``, ``36.6k``, ``12``."""
    large, unit = next(((size, unit) for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if count >= size), (1.0, ""))
    return f"{count / large:,.1f}{unit}" if unit else f"{count:,.0f}"
