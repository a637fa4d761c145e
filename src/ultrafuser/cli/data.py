"""decontaminate: training data without test data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ultrafuser.cli.app import app
from ultrafuser.cli.options import DataDir, Overwrite
from ultrafuser.errors import UserError, did_you_mean


@app.command()
def decontaminate(
    train: Annotated[list[str], typer.Argument(metavar="TRAIN..", help="JSONL or Parquet files, directories, hub datasets.")],
    against: Annotated[str, typer.Option(metavar="TASK,..", help="The benchmarks that shall be judged on, as for `eval`.")],
    out: Annotated[Path, typer.Option(help="File to write: .jsonl, .jsonl.gz or .parquet, as TRAIN is.")],
    data_dir: DataDir = None,
    overwrite: Overwrite = False,
) -> None:
    """Drop training examples that share 13 words in a row with test data, and say which and why.

    Writes OUT, OUT.overlaps.jsonl (what was dropped, and why) and OUT.checked.json (that OUT was checked). `train` and `run`
    warn of data never checked.

    Example: `ultrafuser decontaminate train.jsonl --against gsm8k,humaneval --out clean.jsonl`
    """
    from rich.console import Console

    from ultrafuser.data.decontaminate_files import decontaminate_files

    cleaned = decontaminate_files(train, out, against=_test_sets(against), data_dir=data_dir, overwrite=overwrite)
    Console().print(cleaned.table())
    print(f"wrote {cleaned.out}; dropped examples are in {cleaned.report}")


def _test_sets(against: str) -> list[str]:
    """The test sets that the tasks named in ``--against`` are judged on."""
    from ultrafuser.cli import values
    from ultrafuser.evaluate.catalogue import TASKS
    from ultrafuser.evaluate.choice import GROUPS

    known = {name: [task.test_set] for name, task in TASKS.items() if task.test_set}
    known["paper"] = [known[name][0] for name in GROUPS["paper"]]
    names: list[str] = values.split("--against", against) or []
    for name in names:
        if name not in known:
            raise UserError(f"--against '{name}': no such benchmark{did_you_mean(name, known)} (known: {', '.join(known)})")
    return list(dict.fromkeys(test_set for name in names for test_set in known[name]))
