"""The command line: one table of commands. What a command needs is imported only when it runs, so that help is there at once.

A user's mistake, `UserError`, and a command that is typed wrongly become one line on stderr and exit code 2; Ctrl-C becomes
exit code 130. A function here has as many parameters as its command has options.
"""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from ultrafuser.errors import UserError

ENVIRONMENT = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up", errno.EROFS: "read-only file system"}
ENVIRONMENT |= {errno.EACCES: "permission denied", errno.EPERM: "not permitted"}


class Commands(TyperGroup):
    """The table, with mistakes told in one line."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command and exit."""
        try:
            code = super().main(*args, **(kwargs | {"standalone_mode": False}))
        except UserError as error:
            _stop(str(error))
        except TyperException as error:
            context = getattr(error, "ctx", None)
            _stop(f"{error.format_message().rstrip('.')}; see '{context.command_path if context else 'ultrafuser'} --help'")
        except OSError as error:
            if error.errno not in ENVIRONMENT:
                raise
            _stop(f"{error.filename or 'output'}: {ENVIRONMENT[error.errno]}")
        if code == 130:
            _stop("interrupted", code)
        sys.exit(code if isinstance(code, int) else 0)


def _stop(message: str, code: int = 2) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


app = typer.Typer(
    name="ultrafuser",
    cls=Commands,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Specialists = Annotated[list[str], typer.Argument(metavar="SPECIALIST..", help="Directories or hub ids, LoRA adapters too.")]
Model = Annotated[str, typer.Argument(metavar="MODEL", help="A directory or hub id, fused or not.")]
Fused = Annotated[Path, typer.Argument(metavar="MODEL", help="The directory of a fused model.")]
Prompt = Annotated[str, typer.Argument(help="What to ask.")]
Out = Annotated[Path, typer.Option(help="Directory to write.")]
Names = Annotated[str | None, typer.Option(metavar="A,B,..", help="A name for each; default: the last part of each path.")]
Template = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEMPLATE",
        help="NAME=TEMPLATE for one specialist (repeat it), or one TEMPLATE for all: a shipped one (alpaca, chatml, codellama, "
        "llama3, plain, ultralm2), a Jinja file, or 'own'.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
Seed = Annotated[int, typer.Option(min=0, help="Decides every random number.")]
Tokens = Annotated[int, typer.Option(min=1, help="The longest answer.")]
System = Annotated[str | None, typer.Option(help="A system message.")]
Temperature = Annotated[float | None, typer.Option(min=0, help="0: greedy; default: the model's own.")]
TopP = Annotated[float | None, typer.Option(min=0, max=1, help="Sample from the likeliest tokens only, up to this probability.")]
SampleSeed = Annotated[int | None, typer.Option(min=0, help="Makes a sampled answer repeatable.")]
Dtype = Annotated[Literal["auto", "float32", "bfloat16", "float16"], typer.Option(help="auto: as saved.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, mps, ..; auto: the best there is.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        from ultrafuser import __version__

        print(__version__)
        raise typer.Exit


@app.callback(invoke_without_command=True)
def ultrafuser(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Fuse specialised language models into one that is as good as the best of them at everything.

    Start with `ultrafuser demo`: it trains three tiny specialists, fuses them and shows the result, in minutes.
    """
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def check(
    specialists: Specialists,
    names: Names = None,
    template: Template = None,
    logit_scale: Annotated[bool, typer.Option(help="Also run each on a few prompts and compare their certainty.")] = True,
) -> None:
    """Can these be fused, and how well do they match?

    Example: `ultrafuser check ./text ./code owner/math-7b`
    """
    from rich.console import Console

    from ultrafuser import commands
    from ultrafuser.model.check import check, render

    known = commands.names_for(specialists, names)
    report = check(specialists, names=known, templates=commands.templates_for(template or [], known), logit_scale=logit_scale)
    Console().print(render(report))
    if not report.ok:
        raise UserError(f"these cannot be fused: {report.problems[0]}")


@app.command()
def fuse(
    specialists: Specialists,
    out: Out,
    names: Names = None,
    template: Template = None,
    gate_hidden_size: Annotated[int, typer.Option(min=1, help="Inner size of the gate.")] = 512,
    dtype: Annotated[Literal["float32", "bfloat16", "float16"] | None, typer.Option(help="Default: as they are.")] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Make one model of two to eight specialists, with a gate that is not yet trained.

    Example: `ultrafuser fuse ./text ./code ./math --names text,code,math --template math=alpaca --out fused`
    """
    from ultrafuser import commands
    from ultrafuser.model.fuse import FuseOptions, fuse

    known = commands.names_for(specialists, names)
    templates = commands.templates_for(template or [], known)
    options = FuseOptions(templates=templates, gate_hidden_size=gate_hidden_size, dtype=dtype, seed=seed, overwrite=overwrite)
    print(f"wrote {fuse(specialists, out, names=known, options=options)}")


@app.command()
def extract(
    model: Fused,
    specialist: Annotated[str, typer.Option(help="The name of the specialist.")],
    out: Out,
    overwrite: Overwrite = False,
) -> None:
    """Give one specialist of a fused model back.

    Example: `ultrafuser extract fused --specialist code --out code`
    """
    from ultrafuser.model.extract import extract

    print(f"wrote {extract(model, specialist, out, overwrite=overwrite)}")


@app.command()
def train(
    model: Fused,
    data: Annotated[list[str], typer.Option(help="JSONL or Parquet file or hub dataset; repeat it for several.")],
    out: Out,
    moves: Annotated[str | None, typer.Option(metavar="A,B,..", help="The stages: gate, lora or all.")] = None,
    steps: Annotated[str | None, typer.Option(metavar="N,..", help="Per stage; 0 skips it.")] = None,
    per_domain: Annotated[str | None, typer.Option(metavar="N,..", help="Examples of every domain in a batch.")] = None,
    learning_rate: Annotated[str | None, typer.Option(metavar="X,..", help="Highest learning rate.")] = None,
    schedule: Annotated[str | None, typer.Option(metavar="NAME,..", help="cosine, linear, constant, ..")] = None,
    domains: Annotated[str | None, typer.Option(metavar="A,B,..", help="Default: those in the data.")] = None,
    seed: Seed = 0,
    max_length: Annotated[int, typer.Option(min=1, help="Longer conversations are cut at a turn.")] = 2048,
    load_in: Annotated[Literal["8bit", "4bit"] | None, typer.Option(help="Quantise frozen specialists.")] = None,
    micro_batch_size: Annotated[int, typer.Option(min=1, help="Examples in memory at once, per process.")] = 8,
    mixed_precision: Annotated[Literal["auto", "bf16", "no"], typer.Option(help="auto: bf16 on a GPU.")] = "auto",
    gradient_checkpointing: Annotated[bool, typer.Option("--gradient-checkpointing", help="Less memory, slower.")] = False,
    save_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 250,
    keep_stages: Annotated[bool, typer.Option("--keep-stages", help="Keep each stage's result, as OUT-STAGE.")] = False,
    report_to: Annotated[str, typer.Option(metavar="A,B,..", help="Trackers: wandb, tensorboard, ..")] = "",
    overwrite: Overwrite = False,
) -> None:
    """Train a fused model: by default the paper's two stages, the gate alone, then everything.

    The same command again goes on where an interrupted one ended. Options with commas take one value for all stages or one each.

    Example: `ultrafuser train fused --data train.jsonl --out trained --steps 400,5000 --per-domain 64,32`
    """
    from ultrafuser import commands
    from ultrafuser.train.stage import TrainSettings

    stages = commands.stages_for(
        moves,
        steps=commands.split("--steps", steps, int),
        per_domain=commands.split("--per-domain", per_domain, int),
        learning_rate=commands.split("--learning-rate", learning_rate, float),
        schedule=commands.split("--schedule", schedule),
    )
    settings = TrainSettings(
        seed=seed,
        max_length=max_length,
        load_in=load_in,
        micro_batch_size=micro_batch_size,
        mixed_precision=mixed_precision,
        gradient_checkpointing=gradient_checkpointing,
        save_every=save_every,
        keep_stages=keep_stages,
        report_to=tuple(filter(None, report_to.split(","))),
        overwrite=overwrite,
    )
    from ultrafuser.train.run import train

    print(f"wrote {train(model, data, out, stages=stages, settings=settings, domains=commands.split('--domains', domains))}")


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped recipe.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY.SUB=VALUE]..", help="Changes to the recipe.")] = None,
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
def generate(
    model: Model,
    prompt: Prompt,
    system: System = None,
    max_new_tokens: Tokens = 512,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: SampleSeed = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
) -> None:
    """Answer one prompt.

    Example: `ultrafuser generate trained "Write a function that adds two numbers." --temperature 0`
    """
    from ultrafuser import commands
    from ultrafuser.run.generate import Decoding, answer
    from ultrafuser.run.load import load

    loaded, tokenizer = load(model, dtype=dtype, device=device)
    answer(loaded, tokenizer, commands.messages(prompt, system), Decoding(max_new_tokens, temperature, top_p, seed))


@app.command()
def chat(
    model: Model,
    system: System = None,
    max_new_tokens: Tokens = 1024,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: SampleSeed = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
) -> None:
    """Talk with a model. `/reset` forgets what was said, `/quit` ends, Ctrl-C stops an answer.

    Example: `ultrafuser chat trained --temperature 0.7`
    """
    from ultrafuser.run.chat import chat
    from ultrafuser.run.generate import Decoding
    from ultrafuser.run.load import load

    loaded, tokenizer = load(model, dtype=dtype, device=device)
    chat(loaded, tokenizer, Decoding(max_new_tokens, temperature, top_p, seed), system=system)


@app.command()
def inspect(
    model: Model,
    prompt: Prompt,
    html: Annotated[Path | None, typer.Option(help="Write a page instead of colouring the terminal.")] = None,
    system: System = None,
    max_new_tokens: Tokens = 256,
    dtype: Dtype = "auto",
    device: Device = "auto",
) -> None:
    """Answer one prompt and colour each token by the specialists that produced it.

    Example: `ultrafuser inspect trained "Tom has 3 apples and buys 4 more. How many?" --html answer.html`
    """
    from ultrafuser import commands
    from ultrafuser.analyse.inspect import inspect_prompt
    from ultrafuser.run.load import load

    loaded, tokenizer = load(model, dtype=dtype, device=device)
    inspect_prompt(loaded, tokenizer, commands.messages(prompt, system), max_new_tokens=max_new_tokens, html=html)
    if html:
        print(f"wrote {html}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Directory to write.")] = Path("runs/demo"),
    seed: Seed = 0,
    fast: Annotated[bool, typer.Option("--fast", help="A few steps only: to see it run, not to see it learn.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Train three tiny specialists, fuse them, train both stages, compare and report. Takes minutes on a laptop.

    Example: `ultrafuser demo --out runs/demo`
    """
    from ultrafuser.run.demo import run_demo

    run_demo(out, seed=seed, fast=fast, overwrite=overwrite)


def main() -> None:
    """What the ``ultrafuser`` script calls."""
    app()


if __name__ == "__main__":
    main()
