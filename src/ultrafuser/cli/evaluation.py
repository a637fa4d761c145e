"""eval: models on the benchmarks of the paper."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ultrafuser.cli.app import app
from ultrafuser.cli.options import DataDir, Device, Dtype, LoadIn, Out, Overwrite, Seed

if TYPE_CHECKING:
    from ultrafuser.evaluate.judged.settings import JudgeSettings
    from ultrafuser.evaluate.results import Results

WIDTH = 200  # of the table where there is no terminal


@app.command("eval")
def evaluate(
    models: Annotated[list[str], typer.Argument(metavar="MODEL..", help="Directories or hub ids, fused or not, or NAME=MODEL.")],
    tasks: Annotated[str, typer.Option(metavar="A,B,..", help="gsm8k, humaneval, ..; 'paper' or 'miniworld' for all of those.")],
    out: Out,
    data_dir: DataDir = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many items of each task.")] = None,
    cot: Annotated[bool, typer.Option("--cot", help="Ask for a chain of thought wherever a task can.")] = False,
    specialists: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,..", help="The rows that 'best specialist per task' is made of; default: those named in a fused model."
        ),
    ] = None,
    with_specialists: Annotated[
        bool, typer.Option("--with-specialists", help="Judge the specialists inside each fused model too.")
    ] = False,
    paper: Annotated[bool, typer.Option("--paper", help="Show the paper's figures beside ours.")] = False,
    template: Annotated[
        str | None, typer.Option(help="A chat template for models without one: a shipped one or a Jinja file.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts at once; halved while memory does not suffice.")] = 32,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="The longest answer; default: each task's own.")] = None,
    judge_url: Annotated[str | None, typer.Option(help="The judge's OpenAI-compatible endpoint, with /v1.")] = None,
    judge_model: Annotated[str | None, typer.Option(help="The judge, as that endpoint calls it.")] = None,
    judge_key_env: Annotated[str | None, typer.Option(help="Environment variable that holds the judge's API key.")] = None,
    judge_price: Annotated[str | None, typer.Option(metavar="IN,OUT", help="USD per million tokens.")] = None,
    judge_budget: Annotated[float | None, typer.Option(help="USD that all verdicts may cost together.")] = None,
    judge_reference: Annotated[
        str, typer.Option(help="Whom AlpacaEval compares with: text_davinci_003 or gpt4_1106_preview.")
    ] = "text_davinci_003",
    seed: Seed = 0,
    dtype: Dtype = "auto",
    device: Device = "auto",
    load_in: LoadIn = None,
    overwrite: Overwrite = False,
) -> None:
    """How good are these models, task by task, and is a fused one as good as the best of its specialists?

    Answers are kept in OUT: the same command again goes on where an interrupted one ended. A task that fails is marked, the
    others go on, and the exit code is 2.

    Example: `ultrafuser eval trained --with-specialists --tasks gsm8k,humaneval --data-dir data --out eval --limit 100`
    """
    from ultrafuser.cli import values
    from ultrafuser.evaluate.settings import EvalSettings

    judge = _judge(
        judge_url,
        judge_model,
        judge_price,
        store=out / "verdicts.sqlite",
        api_key_env=judge_key_env,
        budget=judge_budget,
        reference=judge_reference,
        data_dir=data_dir,
        limit=limit,
        seed=seed,
    )
    settings = EvalSettings(
        out=out,
        data_dir=data_dir,
        limit=limit,
        seed=seed,
        cot=cot,
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        specialists=values.split("--specialists", specialists),
        with_specialists=with_specialists,
        template=template,
        paper=paper,
        judge=judge,
        dtype=dtype,
        device=device,
        load_in=load_in,
        overwrite=overwrite,
    )
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


def _judge(url: str | None, model: str | None, price: str | None, **settings: Any) -> JudgeSettings | None:
    """The judge, or None where none is given; ``settings`` are fields of `JudgeSettings`. Raises `UserError` for half of one."""
    from ultrafuser.errors import UserError
    from ultrafuser.evaluate.judged.settings import JudgeSettings, parse_prices

    if url is None and model is None:
        return None
    if url is None or model is None:
        raise UserError("--judge-url and --judge-model are given together")
    return JudgeSettings(url, model, prices=parse_prices(price) if price else (0.0, 0.0), **settings)
