"""`ultrafuser demo`: the shipped recipe ``miniworld``, the whole method in minutes on a laptop."""

from __future__ import annotations

from pathlib import Path

from ultrafuser.config import load_recipe
from ultrafuser.run.recipe import run_recipe

# Enough to see every step work, too little to learn: for tests and for trying the installation.
FAST = (
    "pretrain.base.steps=4",
    "pretrain.specialist.steps=4",
    "train.stages.0.steps=3",
    "train.stages.1.steps=3",
    "world.train_per_domain=200",
    "world.train_mixed=200",
    "evaluation.prompts_per_domain=8",
    "evaluation.samples_per_domain=1",
)


def run_demo(out: str | Path, seed: int = 0, fast: bool = False, overwrite: bool = False) -> Path:
    """Run the generated world's recipe into ``out``; return it. See `run_recipe` for errors."""
    changes = [f"output={out}", f"seed={seed}", *(FAST if fast else ())]
    return run_recipe(load_recipe("miniworld", changes), overwrite=overwrite)
