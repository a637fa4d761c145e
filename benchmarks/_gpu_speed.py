"""Measurements on the device: memory of a joint step, prefill and training forward, decoding, speed of a joint step.

The first two are the benchmarks that have targets (joint_step_memory.py, prefill.py) at the sizes of ``on_gpu.SCALES``.
Times end when the device has done its work; a first round is not counted; medians, and quartiles as "first–third".
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from typing import Any

import joint_step_memory
import prefill
import torch
from _checks import Check, Setting, require
from _gpu_answers import spreads
from _models import build_fused, chosen, specialists_of, token_batch

MIX_ERROR = 0.06  # of the spread of the logits, bfloat16


def options(setting: Setting, kind: str, **values: Any) -> argparse.Namespace:
    """The sizes of one kind of measurement as the benchmarks take them."""
    dtype = "bfloat16" if setting.device == "cuda" else "float32"
    common = {"device": setting.device, "dtype": dtype, "threads": torch.get_num_threads()}
    return chosen(**common | setting.sizes[kind] | values)


def _sizes(of: argparse.Namespace) -> str:
    return f"{of.specialists} x (H {of.hidden}, {of.layers} layers), V {of.vocab}, {of.batch} x {of.tokens} tokens"


def memory(setting: Setting, large_vocabulary: bool) -> dict[str, Any]:
    """Peak of a joint step against N logit tensors."""
    sizes = options(setting, "memory", checkpointing=True)
    sizes.vocab *= 4 if large_vocabulary else 1
    found = joint_step_memory.measure(sizes)
    megabytes = [found[version]["peak_mb"] for version in ("fused", "naive")]
    return {
        **{name: found[name] for name in ("ratio", "target", "reached")},
        "without weights": found["ratio_beyond_weights"],
        "MB, fused and naive": megabytes,
        "at": _sizes(sizes),
    }


def against_specialists(setting: Setting, kind: str) -> dict[str, Any]:
    """Fused against the sum of its specialists; ``kind`` is ``prefill`` or ``training_forward``."""
    torch.manual_seed(0)
    sizes = options(setting, kind)
    fused, ids = build_fused(sizes), token_batch(sizes)
    timed = partial(prefill.seconds, getattr(prefill, kind), ids=ids)
    found = prefill.compare(timed, fused, specialists_of(fused, sizes), sizes.rounds)
    return {**found, "target": prefill.TARGET, "reached": found["ratio"] <= prefill.TARGET, "at": _sizes(sizes)}


@torch.no_grad()
def mix(setting: Setting) -> dict[str, Any]:
    """The fused logits of a prompt are the explicit mix, at full size too; fused of the same weights as its specialists."""
    torch.manual_seed(0)
    sizes = options(setting, "prefill")
    fused = build_fused(sizes).eval()
    models = [model.eval() for model in specialists_of(fused, sizes)]
    ids = token_batch(sizes)[:1, :64]
    expected = joint_step_memory.mixed_logits(models, fused.model.gate, ids).float()
    error = spreads(fused(ids, use_cache=False).logits, expected)
    require(error <= MIX_ERROR, f"logits are off by {error:.4f} of their spread, above {MIX_ERROR}")
    return {"error": error, "parameters, billions": sum(p.numel() for p in fused.parameters()) / 1e9}


def decode(model: Any, ids: torch.Tensor, new_tokens: int) -> None:
    """Greedy generation after a short prompt, with the cache that ``generate`` takes by itself."""
    mask = torch.ones_like(ids)
    model.eval().generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=new_tokens, pad_token_id=0)


def decoding(setting: Setting, batch: int) -> dict[str, Any]:
    """Tokens per second of plain generation: the fused model, and one specialist alone."""
    torch.manual_seed(0)
    sizes = options(setting, "decoding", batch=batch)
    fused, ids = build_fused(sizes), token_batch(sizes)
    timed = partial(prefill.seconds, partial(decode, new_tokens=sizes.new_tokens), ids=ids)
    found = prefill.compare(timed, fused, specialists_of(fused, sizes)[:1], sizes.rounds)
    tokens = batch * sizes.new_tokens
    return {
        "fused, tokens/s": tokens / found["fused_seconds"],
        "quartiles": [tokens / seconds for seconds in found["fused_quartiles"][::-1]],
        "one specialist, tokens/s": tokens / found["specialists_seconds"],
        "its quartiles": [tokens / seconds for seconds in found["specialists_quartiles"][::-1]],
        "time ratio": found["ratio"],
        "at": f"{_sizes(sizes)} of prompt, {sizes.new_tokens} new",
    }


def joint_step(setting: Setting) -> dict[str, Any]:
    """Tokens per second of a joint step as stage 2 does it: float32 weights, bfloat16 autocast, fused AdamW."""
    torch.manual_seed(0)
    sizes = options(setting, "step", dtype="float32", version="fused", checkpointing=True)
    (model,), loss = joint_step_memory.prepare(sizes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-5, fused=True)

    def work(_: Any, ids: torch.Tensor) -> None:
        joint_step_memory.step(autocast_loss, optimizer, ids)

    def autocast_loss(ids: torch.Tensor) -> torch.Tensor:
        with torch.autocast(setting.device, dtype=torch.bfloat16):
            return loss(ids)

    times = [prefill.seconds(work, model, token_batch(sizes)) for _ in range(sizes.rounds + 1)][1:]
    tokens = sizes.batch * sizes.tokens
    return {
        "tokens/s": tokens / statistics.median(times),
        "quartiles": [tokens / seconds for seconds in prefill.quartiles(times)[::-1]],
        "parameters, billions": sum(p.numel() for p in model.parameters()) / 1e9,
        "at": _sizes(sizes),
    }


def checks() -> list[Check]:
    """In the order of how much they need."""
    return [
        Check("memory: joint step, small vocabulary", partial(memory, large_vocabulary=False)),
        Check("memory: joint step, four times that vocabulary", partial(memory, large_vocabulary=True)),
        Check("speed: joint step", joint_step),
        Check("speed: prefill against the specialists", partial(against_specialists, kind="prefill")),
        Check("speed: training forward against the specialists", partial(against_specialists, kind="training_forward")),
        Check("answers: explicit mix at the size of prefill", mix),
        Check("speed: decoding, batch 1", partial(decoding, batch=1)),
        Check("speed: decoding, batch 32", partial(decoding, batch=32)),
    ]
