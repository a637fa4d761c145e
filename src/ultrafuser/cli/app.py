"""The table that commands are put into, and how their mistakes end.

A user's mistake, `UserError`, and a command that is typed wrongly become one line on stderr and exit code 2; Ctrl-C becomes
exit code 130.
"""

from __future__ import annotations

import errno
import sys
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from typer.core import TyperGroup
from typer.exceptions import TyperException

from ultrafuser.errors import UserError
from ultrafuser.refused import in_our_words, short

ENVIRONMENT = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up", errno.EROFS: "read-only file system"}
ENVIRONMENT |= {errno.EACCES: "permission denied", errno.EPERM: "not permitted"}


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


app = typer.Typer(
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
    if context.invoked_subcommand is None:
        print(context.get_help())
