"""Prefill and training forward of the fused model against the sum of its specialists run alone (target: at most 1.03x).

Every round times the fused model and each specialist once, on the same tokens, in an order that turns round from round
to round; the ratio is the median of the rounds' own ratios, so that a busy machine slows both sides alike.

    python benchmarks/prefill.py
    python benchmarks/prefill.py --device cuda --dtype bfloat16 --hidden 4096 --layers 32 --tokens 2048 --batch 1
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from _models import build_fused, build_specialists, parser, report, token_batch

TARGET = 1.03


def prefill(model: Any, ids: torch.Tensor) -> None:
    """Read a prompt: fill the cache and give the last token's logits."""
    with torch.no_grad():
        model.eval()(ids, use_cache=True, logits_to_keep=1)


def training_forward(model: Any, ids: torch.Tensor) -> None:
    """The forward pass of a training step: the loss on every token, with what a backward pass would need."""
    model.train()(ids, labels=ids, use_cache=False)


def seconds(work: Callable[..., None], model: Any, ids: torch.Tensor) -> float:
    """Wall time of one run."""
    if ids.is_cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    work(model, ids)
    if ids.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(work: Callable[..., None], fused: Any, specialists: list[Any], ids: torch.Tensor, rounds: int) -> dict[str, float]:
    """Paired medians over ``rounds`` rounds, after one that is not counted."""
    pairs = []
    for i in range(rounds + 1):
        alone = 0.0
        together = seconds(work, fused, ids) if i % 2 else 0.0
        for model in specialists:
            alone += seconds(work, model, ids)
        together = together or seconds(work, fused, ids)
        pairs.append((together, alone))
    pairs = pairs[1:]
    ratios = sorted(together / alone for together, alone in pairs)
    return {
        "ratio": round(statistics.median(ratios), 4),
        "ratio_quartiles": [round(q, 4) for q in statistics.quantiles(ratios, n=4)[::2]],
        "fused_seconds": round(statistics.median(p[0] for p in pairs), 5),
        "specialists_seconds": round(statistics.median(p[1] for p in pairs), 5),
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Both comparisons; ``ratio`` is the worse of the two."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    specialists, fused, ids = build_specialists(options), build_fused(options), token_batch(options)
    results: dict[str, Any] = {
        work.__name__: compare(work, fused, specialists, ids, options.rounds) for work in (prefill, training_forward)
    }
    ratio = max(result["ratio"] for result in results.values())
    parameters = sum(p.numel() for p in specialists[0].parameters())
    return {"ratio": ratio, "target": TARGET, "reached": ratio <= TARGET, **results, "specialist_parameters": parameters}


if __name__ == "__main__":
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=11)
    arguments = options.parse_args()
    report("prefill", arguments, measure(arguments))
