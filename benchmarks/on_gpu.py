"""Everything about this project that only a GPU can show: checks and measurements, as one Markdown table and JSON.

    python benchmarks/on_gpu.py --out gpu.md
    python benchmarks/on_gpu.py --scale 7b --only speed memory      (3 x 7B, 80 GB)
    python benchmarks/on_gpu.py --device cpu --scale tiny           (does all this run at all?)

Each check fails on its own. ``--out`` is complete up to the last check done, so a run that is cut short loses one. The scale
decides the sizes of what is measured; right answers and training are checked at a small size always. Nothing is downloaded:
all weights are random. Where the package is not installed, set PYTHONPATH=src.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1] / "tests"
SMALL = {
    "answers": {"hidden_size": 256, "intermediate_size": 384, "num_hidden_layers": 4},
    "training": {"hidden_size": 256, "intermediate_size": 384, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 64},
    "memory": {"hidden": 1024, "layers": 8, "vocab": 32000, "batch": 4, "tokens": 1024},
    "prefill": {"hidden": 1024, "layers": 16, "vocab": 32000, "batch": 4, "tokens": 2048, "rounds": 15},
    "training_forward": {"hidden": 1024, "layers": 16, "vocab": 32000, "batch": 4, "tokens": 1024, "rounds": 15},
    "decoding": {"hidden": 1024, "layers": 16, "vocab": 32000, "tokens": 16, "new_tokens": 64, "rounds": 5},
    "step": {"hidden": 1024, "layers": 8, "vocab": 32000, "batch": 8, "tokens": 1024, "rounds": 7},
}
BILLION, SEVEN_BILLION = {"hidden": 2048, "layers": 16}, {"hidden": 4096, "layers": 32}
SCALES: dict[str, dict[str, dict[str, Any]]] = {
    "tiny": {
        "answers": {},
        "training": {},
        "memory": {"hidden": 64, "layers": 1, "vocab": 2000, "batch": 2, "tokens": 64},
        "prefill": {"hidden": 64, "layers": 2, "vocab": 500, "batch": 1, "tokens": 64, "rounds": 3},
        "training_forward": {"hidden": 64, "layers": 2, "vocab": 500, "batch": 1, "tokens": 64, "rounds": 3},
        "decoding": {"hidden": 64, "layers": 2, "vocab": 500, "tokens": 4, "new_tokens": 4, "rounds": 3},
        "step": {"hidden": 64, "layers": 2, "vocab": 500, "batch": 2, "tokens": 32, "rounds": 3},
    },
    "small": SMALL,
    "7b": SMALL
    | {
        "memory": BILLION | {"vocab": 32000, "batch": 4, "tokens": 2048},
        "prefill": SEVEN_BILLION | {"vocab": 32000, "batch": 1, "tokens": 2048, "rounds": 15},
        "training_forward": SEVEN_BILLION | {"vocab": 32000, "batch": 1, "tokens": 1024, "rounds": 15},
        "decoding": SEVEN_BILLION | {"vocab": 32000, "tokens": 16, "new_tokens": 64, "rounds": 5},
        "step": BILLION | {"vocab": 32000, "batch": 8, "tokens": 1024, "rounds": 7},
    },
}


def arguments() -> argparse.Namespace:
    """What was asked for on the command line."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    options.add_argument("--scale", choices=SCALES, default="small", help="sizes of what is measured")
    options.add_argument("--only", nargs="+", metavar="WORDS", help="checks with one of these in their name, such as training")
    options.add_argument("--out", type=Path, metavar="FILE.md", help="write the table there, and JSON beside it")
    options.add_argument("--list", action="store_true", help="print the checks' names")
    return options.parse_args()


def all_checks() -> list[Any]:
    """Every check there is, in the order in which they run."""
    sys.path[:0] = [str(TESTS), str(TESTS / "train")]
    import _gpu_answers
    import _gpu_speed
    import _gpu_training

    return [check for module in (_gpu_answers, _gpu_training, _gpu_speed) for check in module.checks()]


def main() -> int:
    """Run the checks asked for. Exit code 1 if one failed, 2 if there is nothing to run, or to run it on."""
    asked = arguments()
    if asked.device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"  # on a machine with a GPU too
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    checks = all_checks()
    if unknown := [words for words in asked.only or () if not any(words in check.name for check in checks)]:
        print(f"--only {' '.join(unknown)}: in the name of no check; --list prints the names", file=sys.stderr)
        return 2
    import torch
    from _checks import Setting, run_all
    from transformers.utils import logging

    logging.disable_progress_bar()
    checks = [check for check in checks if not asked.only or any(words in check.name for words in asked.only)]
    if asked.list:
        print(*(check.name for check in checks), sep="\n")
        return 0
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here; --device cpu --scale tiny shows only that everything runs", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        outcomes = run_all(checks, Setting(asked.device, Path(folder), SCALES[asked.scale]), asked.out)
    return int(any(outcome.result == "FAILED" for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
