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
from functools import partial
from typing import Any

import torch
from _models import build_fused, parser, report, specialists_of, token_batch

TARGET = 1.03


def prefill(model: Any, ids: torch.Tensor) -> None:
    """Read a prompt: fill the cache and give the last token's logits."""
    with torch.no_grad():
        model.eval()(ids, use_cache=True, logits_to_keep=1)


def training_forward(model: Any, ids: torch.Tensor) -> None:
    """The forward pass of a training step: the loss on every token, with what a backward pass would need."""
    model.train()(ids, labels=ids, use_cache=False)


def seconds(work: Callable[..., Any], model: Any, ids: torch.Tensor, clock: Callable[[], float] = time.perf_counter) -> float:
    """Time of one run, to the end of what the device has to do."""
    if ids.is_cuda:
        torch.cuda.synchronize()
    start = clock()
    work(model, ids)
    if ids.is_cuda:
        torch.cuda.synchronize()
    return clock() - start


def compare(timed: Callable[[Any], float], fused: Any, specialists: list[Any], rounds: int) -> dict[str, Any]:
    """Paired medians over ``rounds`` rounds, after one that is not counted; ``timed`` gives a model's time of one run."""
    pairs = []
    for i in range(rounds + 1):
        sides = [lambda: timed(fused), lambda: sum(timed(model) for model in specialists)]
        times = [side() for side in (sides if i % 2 else sides[::-1])]
        pairs.append(tuple(times if i % 2 else times[::-1]))
    pairs = pairs[1:]
    ratios = sorted(together / alone for together, alone in pairs)
    return {
        "ratio": round(statistics.median(ratios), 4),
        "ratio_quartiles": quartiles(ratios),
        "fused_seconds": round(statistics.median(p[0] for p in pairs), 5),
        "fused_quartiles": quartiles([p[0] for p in pairs]),
        "specialists_seconds": round(statistics.median(p[1] for p in pairs), 5),
        "specialists_quartiles": quartiles([p[1] for p in pairs]),
    }


def quartiles(values: list[float]) -> list[float]:
    """The first and the third."""
    return [round(q, 5) for q in statistics.quantiles(values, n=4)[::2]]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Both comparisons; ``ratio`` is the worse of the two."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    fused, ids = build_fused(options), token_batch(options)
    specialists = specialists_of(fused, options)
    clock = time.process_time if options.clock == "cpu" else time.perf_counter
    results: dict[str, Any] = {}
    for work in (prefill, training_forward):
        results[work.__name__] = compare(partial(seconds, work, ids=ids, clock=clock), fused, specialists, options.rounds)
    ratio = max(result["ratio"] for result in results.values())
    parameters = sum(p.numel() for p in specialists[0].parameters())
    return {"ratio": ratio, "target": TARGET, "reached": ratio <= TARGET, **results, "specialist_parameters": parameters}


if __name__ == "__main__":
    options = parser(__doc__.splitlines()[0], hidden=384, layers=6, vocab=16000, batch=1)
    options.add_argument("--rounds", type=int, default=11)
    options.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu, with --threads 1, on a busy machine")
    arguments = options.parse_args()
    report("prefill", arguments, measure(arguments))
