"""The command line: one table of commands. What a command needs is imported only when it runs, so that help is there at once.

A function here has as many parameters as its command has options. Importing a module of commands puts them into the table, in
the order in which ``--help`` lists them.
"""

from __future__ import annotations

import sys

try:
    from ultrafuser.cli.app import app, stop

    from ultrafuser.cli import fusing, data, training, evaluation, synth, using  # isort: skip
except KeyboardInterrupt:  # before there is a `main` to tell it
    print("error: interrupted", file=sys.stderr)
    sys.exit(130)

__all__ = ["app", "data", "evaluation", "fusing", "main", "synth", "training", "using"]


def main() -> None:
    """What the ``ultrafuser`` script calls. Ctrl-C may come before there is a command to stop."""
    try:
        app()
    except KeyboardInterrupt:
        stop("interrupted", 130)
