"""`ultrafuser fuse`: two to eight specialists become one checkpoint, tensor by tensor.

Everything that can go wrong is looked at before the first byte is written, and the directory appears only when it is whole.
Every tensor goes from file to file block by block: read once, looked at for numbers that are not finite, put where it belongs
in a table (V, H) or cast where it has to be, written. So peak memory does not depend on the models' size.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BeforeValidator
from pydantic.dataclasses import dataclass
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from ultrafuser.io import new_directory, require_new_directory, require_space
from ultrafuser.model.companions import companion_bytes, write_companions
from ultrafuser.model.layout import dropped_rows, fused_config, fused_tensors, gate_bytes, gate_tensors
from ultrafuser.model.lineup import line_up, resolve_templates
from ultrafuser.model.notes import fusion_notes
from ultrafuser.model.safetensors_stream import Advance, parse_size, write_checkpoint, write_file
from ultrafuser.model.sources import Specialist, open_specialists, places_read
from ultrafuser.model.tensors import Tensors, common_dtype, tensor_bytes
from ultrafuser.refused import called_plainly, told_plainly
from ultrafuser.schema import CLOSED, Dtype, Positive, Seed

logger = logging.getLogger(__name__)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
GATE_FILE, DROPPED_FILE = "gate.safetensors", "dropped_rows.safetensors"


@told_plainly
@dataclass(frozen=True, config=CLOSED)
class FuseOptions:
    """What `fuse` may be told besides the specialists.

    Args:
        templates: shipped names, files, or ``own``, one for all or one each; None: each specialist's own.
        gate_hidden_size: inner size of the gate.
        dtype: of the fused weights (``float32``, ``bfloat16``, ``float16``); None: the one that holds all of theirs.
        seed: of the gate's initialisation.
        max_shard_size: of the weight files: bytes, or such as ``500MB``.
        overwrite: replace an existing output.
    """

    templates: Sequence[str] | None = None
    gate_hidden_size: Positive = 512
    dtype: Dtype | None = None
    seed: Seed = 0
    max_shard_size: Annotated[str | int, BeforeValidator(parse_size)] = "5GB"
    overwrite: bool = False


@called_plainly
def fuse(
    specialists: Sequence[str | Path], out: str | Path, *, names: Sequence[str] | None = None, options: FuseOptions | None = None
) -> Path:
    """Fuse ``specialists`` (directories, hub ids, adapters) into the checkpoint directory ``out``; return it.

    The gate is fresh: the fused model mixes, but does not yet route. What is good to know is logged as warnings. Raises
    `UserError` for anything wrong with the specialists, the options, the disk or ``out``; nothing is left half-written.
    """
    options = options or FuseOptions()
    out = require_new_directory(out, overwrite=options.overwrite)  # before anything is fetched
    opened = open_specialists(specialists, names)
    inputs: list[Path | str] = [*places_read(opened), *filter(os.path.isfile, options.templates or ())]
    require_new_directory(out, overwrite=options.overwrite, inputs=inputs)
    templates = resolve_templates(options.templates, len(opened))
    lineup = line_up(opened, templates)
    dtype = choose_dtype(opened, options.dtype)
    config = fused_config(opened, lineup.plan, gate_hidden_size=options.gate_hidden_size, dtype=dtype)
    tensors = fused_tensors(opened, lineup.plan, dtype)
    dropped = {one.name: rows for one in opened if (rows := dropped_rows(one, lineup.plan.slot_start))}
    total = gate_bytes(config) + sum(tensor_bytes(tensor) for group in (tensors, *dropped.values()) for tensor in group.values())
    shard_size = parse_size(options.max_shard_size)
    require_space(out, total + companion_bytes(opened))  # before the gate is made: its size may be a slip of the hand
    gate = gate_tensors(config, options.seed)
    with new_directory(out, overwrite=options.overwrite) as folder, progress_bar("fusing", total) as advance:
        write_checkpoint(folder, tensors, max_shard_size=shard_size, apart={GATE_FILE: gate}, advance=advance)
        write_companions(folder, opened, templates, lineup, config)
        _write_dropped(folder, dropped, advance)
    for note in fusion_notes(opened, lineup, dtype):
        logger.warning("note: %s", note)
    return out


def _write_dropped(folder: Path, dropped: dict[str, Tensors], advance: Advance) -> None:
    for name, rows in dropped.items():
        write_file(folder / "specialists" / name / DROPPED_FILE, rows, advance)


def choose_dtype(specialists: Sequence[Specialist], dtype: Dtype | None) -> torch.dtype:
    """The fused dtype: the one asked for, or the smallest that holds all the specialists' weights."""
    if dtype is None:
        return common_dtype(tensor.dtype for one in specialists for tensor in one.tensors.values())
    return DTYPES[dtype]


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Advance]:
    """Show a bar of bytes on a terminal's standard error; yield the function that advances it."""
    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)
