"""The finished conversations as training data: JSON lines and Parquet, one record per conversation, in the order of their ids.

A record is ``{"id", "domain", "messages", "provenance"}``, as `data.conversations` reads it. The provenance names the topic path,
what the instruction was made from, and per step the prompt's hash, the model and the sampling; it names no endpoint, so the same
recipe and answers give the same files wherever they came from. Its keys are the same in every record, as loaders want it.
Items stream through: memory is that of one row group, whatever their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ultrafuser.io import new_file
from ultrafuser.row_files import json_lines, parquet
from ultrafuser.synth.record import Item

SAMPLING = {"temperature": "float64", "top_p": "float64", "max_tokens": "int64", "seed": "int64", "attempt": "int64"}


def export(items: Iterable[Item], folder: Path, *, also: Callable[[Item], None] = lambda item: None) -> tuple[Path, Path]:
    """Write ``items`` to ``folder``/data.jsonl and ``folder``/data.parquet; both appear whole or not at all.

    Args:
        items: accepted ones, in order.
        folder: must exist; earlier files of these names are replaced.
        also: is called with every item on its way.

    Raises:
        UserError: if a file cannot be written, or the disk is full.
    """
    lines, columns = folder / "data.jsonl", folder / "data.parquet"
    with ExitStack() as stack:
        parts = [stack.enter_context(new_file(path, overwrite=True)) for path in (lines, columns)]
        writers = [stack.enter_context(json_lines(parts[0])), stack.enter_context(parquet(parts[1], _schema()))]
        for item in items:
            record = to_record(item)
            for write in writers:
                write(record)
            also(item)
    return lines, columns


def to_record(item: Item) -> dict[str, Any]:
    """The training record of an accepted item."""
    return {
        "id": item.id,
        "domain": item.domain,
        "messages": [{"role": turn["role"], "content": turn["content"]} for turn in item.turns],
        "provenance": {
            "topic": [item.domain, item.meta_topic, item.sub_topic],
            "kind": item.kind,
            "traits": [f"{name}: {value}" for name, value in item.traits.items()],
            "original": item.original,
            "reviewed": str(item.provenance.get("review", {}).get("action", "")),
            "steps": [_step(step, origin) for step, origin in origins(item)],
        },
    }


def origins(item: Item) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every answer that has a part in an item, as ``(step, origin)``; a step may have several, and other notes are left out."""
    for step, noted in item.provenance.items():
        for origin in noted if isinstance(noted, list) else [noted]:
            if isinstance(origin, dict) and "prompt" in origin:
                yield step, origin


def _step(step: str, origin: Mapping[str, Any]) -> dict[str, Any]:
    sampling = origin.get("sampling", {})
    return {"step": step, "prompt": origin["prompt"], "model": origin["model"], **{name: sampling.get(name) for name in SAMPLING}}


def _schema() -> Any:
    import pyarrow as pa

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    step = pa.struct([*((name, pa.string()) for name in ("step", "prompt", "model")), *SAMPLING.items()])
    provenance = pa.struct(
        [
            ("topic", pa.list_(pa.string())),
            ("kind", pa.string()),
            ("traits", pa.list_(pa.string())),
            ("original", pa.string()),
            ("reviewed", pa.string()),
            ("steps", pa.list_(step)),
        ]
    )
    return pa.schema([("id", pa.string()), ("domain", pa.string()), ("messages", pa.list_(message)), ("provenance", provenance)])
