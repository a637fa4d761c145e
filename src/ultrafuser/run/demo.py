"""`ultrafuser demo`: the shipped recipe ``miniworld``, the whole method in minutes on a laptop."""

from __future__ import annotations

from pathlib import Path

from ultrafuser.config import load_recipe
from ultrafuser.run.recipe import run_recipe

# Enough to see every step work, too little to learn: for tests and for trying the installation.
FAST = (
    *(f"pretrain.{one}.{key}" for one in ("base", "specialist") for key in ("steps=4", "warmup_steps=0")),
    *(f"train.stages.{place}.{key}" for place in (0, 1) for key in ("steps=3", "warmup_steps=0")),
    "world.train_per_domain=200",
    "world.train_mixed=200",
    "evaluation.prompts_per_domain=8",
    "evaluation.samples_per_domain=1",
)


def run_demo(out: str | Path, seed: int = 0, fast: bool = False, overwrite: bool = False) -> Path:
    """Run the generated world's recipe into ``out``; return it. See `run_recipe` for errors."""
    changes = [f"output={out}", f"seed={seed}", *(FAST if fast else ())]
    return run_recipe(load_recipe("miniworld", changes), overwrite=overwrite)
