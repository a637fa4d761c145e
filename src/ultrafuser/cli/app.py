"""The table that commands are put into, and how their mistakes end.

A user's mistake, `UserError`, and a command that is typed wrongly become one line on stderr and exit code 2; Ctrl-C becomes
exit code 130. What a function calls ``load_in=4bit`` is told as it was typed, ``--load-in 4bit``.
"""

from __future__ import annotations

import errno
import logging
import re
import sys
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from ultrafuser.errors import UserError
from ultrafuser.refused import in_our_words, short

ENVIRONMENT = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up", errno.EROFS: "read-only file system"}
ENVIRONMENT |= {errno.EACCES: "permission denied", errno.EPERM: "not permitted"}
MAY_BE_EMPTY = ("prompt", "system")


class Command(TyperCommand):
    """A command; nothing but what a model is told may be empty: as a path an empty text would be the current directory."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put what was typed into ``ctx``."""
        typed, _, _ = self.make_parser(ctx).parse_args(list(args))
        parameters: list[Any] = self.get_params(ctx)
        for parameter in parameters:
            value = typed.get(parameter.name)
            texts = value if isinstance(value, list | tuple) else [value]
            if parameter.name not in MAY_BE_EMPTY and any(isinstance(text, str) and not text.strip() for text in texts):
                raise typer.BadParameter("it is empty; give a value or leave it out", ctx=ctx, param=parameter)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except UserError as error:
            options = {parameter.name: parameter.opts[0] for parameter in self.params}
            error.args = (_as_typed(str(error), options, " ".join(map(str, ctx.params.values()))),)
            raise


class CommandTable(typer.Typer):
    """Where commands are put."""

    def command(self, name: str | None = None, **settings: Any) -> Any:
        """Put a function there as a command."""
        return super().command(name, cls=Command, **settings)


class Commands(TyperGroup):
    """The table, with mistakes told in one line."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command and exit."""
        try:
            code = super().main(*args, **(kwargs | {"standalone_mode": False}))
        except UserError as error:
            stop(str(error))
        except TyperException as error:
            context = getattr(error, "ctx", None)
            stop(f"{_told(error)}; see '{context.command_path if context else 'ultrafuser'} --help'")
        except OSError as error:
            if error.errno not in ENVIRONMENT:
                raise
            stop(f"{error.filename or 'output'}: {ENVIRONMENT[error.errno]}")
        if code == 130:
            stop("interrupted", code)
        sys.exit(code if isinstance(code, int) else 0)


def stop(message: str, code: int = 2) -> None:
    """Tell ``message`` in the way of all mistakes, and exit."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)


def _told(error: TyperException) -> str:
    """What was typed wrongly; what pydantic refused, for Typer, in the words that recipes are told in too."""
    if isinstance(error.__cause__, ValidationError):
        details = error.__cause__.errors()[0]
        ours = details["type"] == "value_error"  # names the value already
        error.message = in_our_words(details) if ours else f"{short(details['input'])} {in_our_words(details)}"
    return error.format_message().rstrip(".")


def _as_typed(message: str, options: dict[str, str], typed: str) -> str:
    """``message`` with the arguments of Python functions as options; what was ``typed`` like one, a file ``seed=3``, stays."""
    named = re.compile(rf"(?<![\w./'-])({'|'.join(map(re.escape, options))})(?:=|: (?='))")
    return named.sub(lambda found: found[0] if found[0] in typed else f"{options[found[1]]} ", message)


app = CommandTable(
    name="ultrafuser",
    cls=Commands,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
    # transformers imports peft, that bitsandbytes, which on some CPUs tells everybody of a kernel that it could fetch and run.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    if context.invoked_subcommand is None:
        print(context.get_help())
