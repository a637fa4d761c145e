"""Peak memory of a joint training step against the version that builds N logit tensors (target: at most 0.6x).

Each version runs in a process of its own: forward, backward and AdamW, twice, so that the optimizer's state stands beside
the second step's activations. Every token carries a loss. The naive version is N separate models, whose logits are
weighted by the gate and added.

``ratio``, which the target is for, compares everything that a step needs: weights, gradients, optimizer state and
activations (the process's peak less what it had before the models were built; on CUDA the peak of allocated memory).
``ratio_beyond_weights`` leaves the weights out on both sides. On the CPU freed memory is given back to the system at once,
for otherwise the peak tells how the allocator keeps it rather than what the step needs.

    python benchmarks/joint_step_memory.py
    python benchmarks/joint_step_memory.py --device cuda --dtype bfloat16 --hidden 2048 --layers 16 --tokens 2048 --batch 8
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from _memory import host_memory
from _models import build_fused, build_gate, build_specialists, parser, report, token_batch

TARGET = 0.6
STEPS = 2
MEGABYTE = 2**20
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # for glibc


def fused_version(options: argparse.Namespace) -> tuple[list[Any], Callable[[Any], Any]]:
    """The modules to train, and the loss of a batch of ids."""
    model = build_fused(options).train()
    return [model], lambda ids: model(ids, labels=ids, use_cache=False).loss


def naive_version(options: argparse.Namespace) -> tuple[list[Any], Callable[[Any], Any]]:
    """The same with N tensors of logits."""
    import torch

    models, gate = [model.train() for model in build_specialists(options)], build_gate(options)

    def loss(ids: Any) -> Any:
        logits = mixed_logits(models, gate, ids)[:, :-1]
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())

    return [*models, gate], loss


def mixed_logits(models: list[Any], gate: Any, ids: Any) -> Any:
    """The fused logits (B, T, V) from N tensors of logits."""
    states = [model.model(ids, use_cache=False).last_hidden_state for model in models]  # N x (B, T, H)
    weights = gate(states)  # (B, T, N)
    logits = [model.lm_head(state) for model, state in zip(models, states, strict=True)]  # N x (B, T, V)
    return sum(weights[..., j : j + 1].to(part.dtype) * part for j, part in enumerate(logits))


VERSIONS = {"fused": fused_version, "naive": naive_version}


def prepare(options: argparse.Namespace) -> tuple[list[Any], Callable[[Any], Any]]:
    """One version's modules, ready to train, and its loss."""
    modules, loss = VERSIONS[options.version](options)
    if options.checkpointing:
        for model in modules[: options.specialists]:
            model.gradient_checkpointing_enable()
    return modules, loss


def step(loss: Callable[[Any], Any], optimizer: Any, ids: Any) -> Any:
    """One training step; returns its loss."""
    value = loss(ids)
    value.backward()
    optimizer.step()
    optimizer.zero_grad()
    return value


def run(options: argparse.Namespace) -> dict[str, float]:
    """One version in this process: megabytes at the peak, and of the weights, over what there was before."""
    import torch

    import ultrafuser.model.modeling_ultrafuser  # noqa: F401  (imports are not a step's memory)

    cuda = options.device == "cuda"
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    before = 0 if cuda else host_memory("VmRSS")
    modules, loss = prepare(options)
    weights = (torch.cuda.memory_allocated() if cuda else host_memory("VmRSS")) - before
    optimizer = torch.optim.AdamW([p for module in modules for p in module.parameters()])
    for _ in range(STEPS):
        value = step(loss, optimizer, token_batch(options))
    peak = (torch.cuda.max_memory_allocated() if cuda else host_memory("VmHWM")) - before
    return {"peak_mb": round(peak / MEGABYTE, 1), "weights_mb": round(weights / MEGABYTE, 1), "loss": round(value.item(), 4)}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Both versions, each in a fresh process."""
    results = {}
    given = {name: value for name, value in vars(options).items() if name not in ("version", "checkpointing")}
    words = [f"--{name}={value}" for name, value in given.items()] + ["--checkpointing"] * options.checkpointing
    for version in VERSIONS:
        command = [sys.executable, __file__, *words, "--version", version]
        done = subprocess.run(command, env=os.environ | GIVE_BACK, check=True, stdout=subprocess.PIPE, text=True)
        results[version] = json.loads(done.stdout)
    fused, naive = results["fused"], results["naive"]
    ratio = fused["peak_mb"] / naive["peak_mb"]
    beyond = (fused["peak_mb"] - fused["weights_mb"]) / (naive["peak_mb"] - naive["weights_mb"])
    summary = {"ratio": round(ratio, 4), "target": TARGET, "reached": ratio <= TARGET, "ratio_beyond_weights": round(beyond, 4)}
    return summary | results


if __name__ == "__main__":
    options = parser(__doc__.splitlines()[0], hidden=256, layers=4, tokens=512, batch=4)
    options.add_argument("--version", choices=VERSIONS, help="run this version only, in this process")
    options.add_argument("--checkpointing", action="store_true", help="gradient checkpointing in both versions")
    arguments = options.parse_args()
    if arguments.version:
        print(json.dumps(run(arguments)))
    else:
        report("joint_step_memory", arguments, measure(arguments))
