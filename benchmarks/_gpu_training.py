"""Checks of training on the device: both stages in bfloat16, resuming after SIGKILL, quantised specialists.

The models, conversations and stages are those of the tests (tests/train/training_world.py), the models larger.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _checks import Check, Failed, Setting, Skipped, require
from training_world import DOMAINS, STAGES, conversations, in_process, make_fused, run_training, weights

from ultrafuser.evaluate.heldout import heldout_loss
from ultrafuser.model.load import load

GATE = ".gate."
BF16 = {"mixed_precision": "bf16"}
PATIENCE = 300  # seconds that a training in another process may take


@dataclass
class Place:
    """A fused model on disk, and where what is trained from it goes."""

    fused: Path
    out: Path

    def stage(self, name: str) -> dict[str, torch.Tensor]:
        """Weights that a stage before the last has left."""
        return weights(self.out.with_name(f"{self.out.name}-{name}"))


@contextmanager
def place(setting: Setting) -> Iterator[Place]:
    """A directory for one check."""
    with tempfile.TemporaryDirectory(dir=setting.folder) as folder:
        yield Place(make_fused(Path(folder), **setting.sizes["training"]), Path(folder) / "out")


def losses(out: Path) -> list[float]:
    """The losses that were logged; fails if one is not a number."""
    found = [json.loads(line)["loss"] for line in (out / "training" / "metrics.jsonl").read_text().splitlines()]
    require(bool(found) and all(map(math.isfinite, found)), f"losses are {found}")
    return found


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """Names of the tensors that are not the same bits."""
    require(before.keys() == after.keys(), "the checkpoint's tensors are not those of before")
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}


def two_stages(setting: Setting) -> dict[str, Any]:
    """Both stages: the first leaves the specialists' bits alone, the second moves every one of them; losses are numbers."""
    with place(setting) as here:
        run_training(here.fused, here.out, STAGES, {**BF16, "keep_stages": True})
        found = losses(here.out)
        first, gate, joint = weights(here.fused), here.stage("gate"), weights(here.out)
        moved = changed(first, gate)
        require(bool(moved) and all(GATE in name for name in moved), f"stage 1 changed {sorted(moved)[:3]} ..")
        still = {name for name in gate if "layers" in name} - changed(gate, joint)
        require(not still, f"stage 2 left {sorted(still)[:3]} .. as they were")
        both = changed(gate, joint)
        return {"loss": [found[0], found[-1]], "tensors": len(first), "changed in stage 1": len(moved), "in stage 2": len(both)}


def _deterministic(*args: Any) -> None:
    """`run_training` in a process of its own, as deterministic as PyTorch can be."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    run_training(*args)


def _train(here: Place, out: Path, kill_at: str | None = None) -> None:
    """Train in another process; with ``kill_at`` only until that path exists under the work directory, then SIGKILL."""
    process = in_process(_deterministic, here.fused, out, STAGES, BF16)
    end = time.monotonic() + PATIENCE
    while process.is_alive() and time.monotonic() < end:
        if kill_at and any(out.with_name("out.work").glob(kill_at)):
            process.kill()
        process.join(0.01)
    process.kill()
    process.join()
    expected = -signal.SIGKILL if kill_at else 0
    require(process.exitcode == expected, f"the training process ended with {process.exitcode}, not {expected}")


def resume(setting: Setting) -> dict[str, Any]:
    """Killed in each stage and started again, it ends with the bits of a run that nothing disturbed."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the other processes start
    with place(setting) as here:
        ends = []
        for name, kills in (("one", []), ("two", []), ("killed", ["1-gate/checkpoint-2", "2-joint/checkpoint-4"])):
            out = here.out.parent / name / "out"
            out.parent.mkdir()
            for kill_at in (*kills, None):
                _train(here, out, kill_at)
            ends.append(weights(out))
    noise, off = (len(changed(ends[0], other)) for other in ends[1:])
    if noise == 0:
        require(off == 0, f"{off} tensors differ from those of a run that was not killed, though two such runs agree")
        return {"killed": "in both stages", "weights": "bit-identical"}
    gaps = [max(float((ends[0][name].float() - other[name].float()).abs().max()) for name in other) for other in ends[1:]]
    if gaps[1] > 10 * gaps[0]:
        raise Failed(f"the killed run is {gaps[1]:.2g} off, two undisturbed runs are {gaps[0]:.2g} apart")
    return {"weights": "this device is not deterministic", "two runs apart": gaps[0], "killed run apart": gaps[1]}


def judge(model: Path, load_in: str | None) -> float:
    """Mean loss over the training conversations, in nats per answer token."""
    losses = heldout_loss(*load(model, load_in=load_in), conversations(), progress=False)
    return sum(loss.mean for loss in losses.values()) / len(losses)


def quantised(setting: Setting, load_in: str) -> dict[str, Any]:
    """The gate stage over specialists held in 8 or 4 bit: the gate alone changes, and the result can be judged like that."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise Skipped("bitsandbytes is not installed")
    with place(setting) as here:
        run_training(here.fused, here.out, STAGES[:1], {**BF16, "load_in": load_in})
        found = losses(here.out)
        moved = changed(weights(here.fused), weights(here.out))
        require(bool(moved) and all(GATE in name for name in moved), f"changed: {sorted(moved)[:3]} ..")
        judged, whole = (judge(here.out, one) for one in (load_in, None))
        require(abs(judged - whole) < 0.1 * whole, f"the loss is {judged} in {load_in}, {whole} in full")
        return {"loss": [found[0], found[-1]], "changed": len(moved), "judged": judged, "in full": whole}


def checks() -> list[Check]:
    return [
        Check(f"training: both stages, bfloat16, {len(DOMAINS)} specialists", two_stages),
        Check("training: SIGKILL and resume", resume),
        *(Check(f"training: gate stage, specialists in {bits}", partial(quantised, load_in=bits)) for bits in ("8bit", "4bit")),
    ]
