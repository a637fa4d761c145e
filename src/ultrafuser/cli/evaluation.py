"""eval: models on the benchmarks of the paper."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ultrafuser.cli import values
from ultrafuser.cli.app import app
from ultrafuser.cli.groups import grouped
from ultrafuser.cli.options import DataDir, Loading, Out, Overwrite, Seed
from ultrafuser.evaluate.settings import EvalSettings
from ultrafuser.io import user_path

if TYPE_CHECKING:
    from ultrafuser.evaluate.judged.settings import JudgeSettings
    from ultrafuser.evaluate.results import Results

WIDTH = 200  # of the table where there is no terminal


@dataclass(frozen=True)
class Asking:
    """What is asked."""

    data_dir: DataDir = None
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many items of each task.", show_default="all")] = (
        None
    )
    cot: Annotated[bool, typer.Option("--cot", help="Ask for a chain of thought wherever a task can.")] = False
    template: Annotated[
        str | None,
        typer.Option(help="A chat template for models without one: a shipped one or a Jinja file.", show_default="none"),
    ] = None
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts at once; halved while memory does not suffice.")] = (
        EvalSettings.batch_size
    )
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="The longest answer.", show_default="each task's own")] = None
    seed: Seed = 0


@dataclass(frozen=True)
class Comparing:
    """What is compared."""

    specialists: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,..",
            help="The rows that 'best specialist per task' is made of.",
            show_default="those named in a fused model",
        ),
    ] = None
    with_specialists: Annotated[
        bool, typer.Option("--with-specialists", help="Judge the specialists inside each fused model too.")
    ] = False
    paper: Annotated[bool, typer.Option("--paper", help="Show the paper's figures beside ours.")] = False


@dataclass(frozen=True)
class Judge:
    """The judge of AlpacaEval and MT-Bench."""

    judge_url: Annotated[
        str | None, typer.Option(help="The judge's OpenAI-compatible endpoint, with /v1.", show_default="no judge")
    ] = None
    judge_model: Annotated[str | None, typer.Option(help="The judge, as that endpoint calls it.", show_default="no judge")] = None
    judge_key_env: Annotated[
        str | None, typer.Option(help="Environment variable that holds the judge's API key.", show_default="no key")
    ] = None
    judge_price: Annotated[
        str | None, typer.Option(metavar="IN,OUT", help="USD per million tokens.", show_default="cost is not counted")
    ] = None
    judge_budget: Annotated[
        float | None, typer.Option(help="USD that all verdicts may cost together.", show_default="no limit")
    ] = None
    judge_reference: Annotated[
        str | None,
        typer.Option(
            help="Whom AlpacaEval compares with: text_davinci_003 or gpt4_1106_preview.", show_default="text_davinci_003"
        ),
    ] = None
    judge_moved: Annotated[
        bool, typer.Option("--judge-moved", help="Verdicts in OUT from another URL are this same judge's.")
    ] = False

    def read(self, store: Path, asking: Asking) -> JudgeSettings | None:
        """The judge that was typed, None if none was. Raises `UserError`, also for half of one and for options without one."""
        from ultrafuser.evaluate.judged.settings import judge_from_options

        return judge_from_options(
            self.judge_url,
            self.judge_model,
            price=self.judge_price,
            api_key_env=self.judge_key_env,
            budget=self.judge_budget,
            reference=self.judge_reference,
            moved=self.judge_moved,
            store=store,
            data_dir=asking.data_dir,
            limit=asking.limit,
            seed=asking.seed,
        )


@app.command("eval")
@grouped
def evaluate(
    models: Annotated[list[str], typer.Argument(metavar="MODEL..", help="Directories or hub ids, fused or not, or NAME=MODEL.")],
    tasks: Annotated[str, typer.Option(metavar="A,B,..", help="gsm8k, humaneval, ..; 'paper' or 'miniworld' for all of those.")],
    out: Out,
    overwrite: Overwrite = False,
    *,
    asking: Asking,
    comparing: Comparing,
    judge: Judge,
    loading: Loading,
) -> None:
    """How good are these models, task by task, and is a fused one as good as the best of its specialists?

    Answers are kept in OUT: the same command again goes on where an interrupted one ended. A task that fails is marked, the
    others go on, and the exit code is 2.

    Example: `ultrafuser eval trained --with-specialists --tasks gsm8k,humaneval --data-dir data --out eval --limit 100`
    """
    out, typed = user_path(out), vars(asking) | vars(comparing) | vars(loading)
    typed |= {"specialists": values.split("--specialists", comparing.specialists)}
    settings = EvalSettings(out, judge=judge.read(out / "verdicts.sqlite", asking), overwrite=overwrite, **typed)
    from ultrafuser.evaluate.benchmark import evaluate_models  # loads torch, now that what was typed is right

    results = evaluate_models(models, values.split("--tasks", tasks) or [], settings)
    _show(results)
    print(f"wrote {out / 'report.html'}, {out / 'results.md'} and {out / 'results.json'}")
    if results.failures:
        raise typer.Exit(2)


def _show(results: Results) -> None:
    """Print the tables, and what a reader of them must know."""
    from rich.console import Console

    from ultrafuser.evaluate.report import unreadable

    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    for table in results.tables():
        console.print(table.to_rich())
        for remark in table.remarks():
            print(remark)
    for line in unreadable(results):
        print(f"unreadable: {line}")
    for (model, task), score in results.scores.items():
        for note in score.notes:
            print(f"note: {model}, {task}: {note}")
