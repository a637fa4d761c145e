"""Runs checks one after the other, each failing on its own, and keeps what was found as Markdown and JSON after every one."""

from __future__ import annotations

import gc
import json
import os
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ultrafuser import facts

GIB = 2**30
RESULTS = ("ok", "missed", "FAILED", "skipped")


@dataclass(frozen=True, eq=False)  # so that what was made for one can be kept by it
class Setting:
    """What every check is told: where to run, a directory of its own, and the sizes in use (``on_gpu.SCALES``)."""

    device: str
    folder: Path
    sizes: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Check:
    """``run`` returns what it found, in words or numbers; it raises `Failed`, `Skipped`, or whatever goes wrong.

    Where a target is ``reached`` or not, it says so: a missed one is shown as such and counts as no failure.
    """

    name: str
    run: Callable[[Setting], dict[str, Any]]


@dataclass(frozen=True)
class Outcome:
    name: str
    result: str  # one of `RESULTS`
    found: dict[str, Any]
    seconds: float
    peak_gib: float  # of memory allocated by this process on the device


class Failed(Exception):
    """What was measured is not what it has to be."""


class Skipped(Exception):
    """This cannot be checked here, and why."""


def require(holds: bool, otherwise: str) -> None:
    """Raise `Failed` unless it ``holds``."""
    if not holds:
        raise Failed(otherwise)


def run_check(check: Check, setting: Setting) -> Outcome:
    """Run one check; nothing that goes wrong in it gets out."""
    cuda = setting.device == "cuda"
    start, found = time.perf_counter(), {}
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    try:
        found = check.run(setting)
        result = "ok" if found.get("reached", True) else "missed"
    except Skipped as reason:
        found, result = {"reason": str(reason)}, "skipped"
    except Failed as reason:
        found, result = {"reason": str(reason)}, "FAILED"
    except Exception as error:
        traceback.print_exc()
        found, result = {"reason": f"{type(error).__name__}: {error}".splitlines()[0][:300]}, "FAILED"
    seconds = round(time.perf_counter() - start, 1)
    peak = round(torch.cuda.max_memory_allocated() / GIB, 2) if cuda else 0.0
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
    return Outcome(check.name, result, found, seconds, peak)


def run_all(checks: Iterable[Check], setting: Setting, out: Path | None) -> list[Outcome]:
    """Run the checks; ``out`` (Markdown, and JSON beside it) is complete up to the last one done, whenever this ends."""
    outcomes: list[Outcome] = []
    about = describe(setting)
    for check in checks:
        outcomes.append(run_check(check, setting))
        print(row(outcomes[-1]), file=sys.stderr, flush=True)
        if out:
            out.write_text(markdown(about, outcomes), encoding="utf-8")
            text = json.dumps({**about, "checks": [asdict(outcome) for outcome in outcomes]}, indent=2)
            out.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    print(markdown(about, outcomes))
    return outcomes


def describe(setting: Setting) -> dict[str, str]:
    """Machine, versions, commit and command."""
    about = {
        "command": shlex.join(["python", *sys.argv]),
        "versions": ", ".join(facts.versions()),
        "machine": facts.machine(),
        "commit": facts.commit(),
    }
    if setting.device == "cuda":
        memory = torch.cuda.get_device_properties(0).total_memory / GIB
        about["device"] = f"{torch.cuda.get_device_name()}, {memory:.1f} GiB, CUDA {torch.version.cuda}"
    else:
        about["device"] = f"CPU, {torch.get_num_threads()} threads of {os.cpu_count()}"
    return about


def markdown(about: dict[str, str], outcomes: list[Outcome]) -> str:
    """The report: what it ran on, and a row for every check."""
    head = [f"- {name}: {value}" for name, value in about.items()]
    counts = {kind: sum(outcome.result == kind for outcome in outcomes) for kind in RESULTS}
    table = ["| check | result | found | seconds | peak GiB |", "|---|---|---|---|---|", *map(row, outcomes)]
    return "\n".join([*head, "- " + ", ".join(f"{kind}: {n}" for kind, n in counts.items()), "", *table, ""])


def row(outcome: Outcome) -> str:
    """One line of the table."""
    found = "; ".join(f"{name}: {_shown(value)}" for name, value in outcome.found.items()).replace("|", "/")
    return f"| {outcome.name} | {outcome.result} | {found} | {outcome.seconds:.1f} | {outcome.peak_gib:.2f} |"


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "–".join(_shown(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
