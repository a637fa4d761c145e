"""check, fuse, extract: from specialists to one model and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from ultrafuser.cli.app import app
from ultrafuser.cli.groups import grouped
from ultrafuser.cli.options import Fused, Names, Out, Overwrite, Seed, Specialists, Template
from ultrafuser.errors import UserError
from ultrafuser.schema import Dtype
from ultrafuser.schema import Fuse as Defaults


@dataclass(frozen=True)
class Fusing:
    """The fused model."""

    gate_hidden_size: Annotated[int, typer.Option(min=1, help="Inner size of the gate.")] = Defaults().gate_hidden_size
    dtype: Annotated[Dtype | None, typer.Option(help="Of the weights.", show_default="the one that holds all of theirs")] = None
    max_shard_size: Annotated[str, typer.Option(metavar="SIZE", help="Largest weight file, like 500MB.")] = "5GB"
    seed: Seed = 0


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

    from ultrafuser.cli import values
    from ultrafuser.model.check import check, render

    known = values.names_for(specialists, names)
    report = check(specialists, names=known, templates=values.templates_for(template or [], known), logit_scale=logit_scale)
    Console().print(render(report))
    if not report.ok:
        raise UserError(f"these cannot be fused: {report.problems[0]}")


@app.command()
@grouped
def fuse(
    specialists: Specialists,
    out: Out,
    names: Names = None,
    template: Template = None,
    overwrite: Overwrite = False,
    *,
    fusing: Fusing,
) -> None:
    """Make one model of two to eight specialists, with a gate that is not yet trained.

    Example: `ultrafuser fuse ./text ./code ./math --names text,code,math --template math=alpaca --out fused`
    """
    from ultrafuser.cli import values
    from ultrafuser.model.fuse import FuseOptions, fuse

    known = values.names_for(specialists, names)
    templates = values.templates_for(template or [], known)
    options = FuseOptions(templates=templates, overwrite=overwrite, **vars(fusing))
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
