"""Checks on the device that the fused model says what N separate models and an explicit mix say (tests/reference.py).

Every model is saved and loaded again in the precision that is checked, as users load it. Errors are measured in units of the
reference's spread (the standard deviation of its logits). A generated token counts as right if the reference, after the same
tokens, holds it for the best or within that error of the best: in bfloat16 near ties may fall either way.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from types import SimpleNamespace
from typing import Any

import torch
from _checks import Check, Setting, Skipped, require
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.generation import ContinuousBatchingConfig
from transformers.utils import is_flash_attn_2_available

from reference import END, VOCAB, Templates, fuse_by_hand, mixed_logits, tiny_llama

UNLIKE = Templates(user=[[1, 2, 3, 4], [5], [6, 7]], answer=[[8], [9, 10, 11], [12, 13]])
BATCH = [[[20, 21, 22, 25, 26]], [[20]], [[23, 24], [30, 31, 32, 33], [25]]]  # conversations of one and of three turns
NEVER = 10**6  # an end token that nothing generates
NEW_TOKENS = 10
ERROR = {torch.float32: 1e-3, torch.bfloat16: 0.06}  # of the spread
ATTENTIONS = {torch.float32: ("sdpa", "eager"), torch.bfloat16: ("sdpa", "eager", "flash_attention_2")}


@dataclass
class Trial:
    """A fused model on the device, its specialists, and what of a conversation each of them reads."""

    fused: Any
    own: list[Any]
    templates: Templates | None
    device: str
    dtype: torch.dtype

    def fused_ids(self, turns: list[list[int]]) -> list[int]:
        return self.templates.fused_ids(turns) if self.templates else [*chain(*turns)]

    def own_ids(self, turns: list[list[int]]) -> list[list[int]]:
        return [self.templates.own_ids(j, turns) if self.templates else [*chain(*turns)] for j in range(len(self.own))]

    @torch.no_grad()
    def reference(self, prompts: list[list[int]]) -> torch.Tensor:
        """The explicit mix of N separate models: logits (V,), float32."""
        with torch.device(self.device):
            return mixed_logits(self.fused, self.own, prompts)

    def batch(self) -> dict[str, torch.Tensor]:
        """`BATCH`, padded on the left."""
        rows = [self.fused_ids(turns) for turns in BATCH]
        width = max(map(len, rows))
        ids = torch.tensor([[0] * (width - len(row)) + row for row in rows], device=self.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=self.device)
        return {"input_ids": ids, "attention_mask": mask}

    def error(self, got: torch.Tensor, expected: torch.Tensor) -> float:
        """The largest error in units of the spread; fails if it is too large."""
        error = spreads(got, expected)
        require(error <= ERROR[self.dtype], f"logits are off by {error:.4f} of their spread, above {ERROR[self.dtype]}")
        return error

    def greedy_error(self, answer: list[int], turns: list[list[int]]) -> float:
        """How far below the reference's best a token of the answer is, in units of the spread, at worst."""
        worst = 0.0
        for i, token in enumerate(answer):
            expected = self.reference([[*prompt, *answer[:i]] for prompt in self.own_ids(turns)])
            below = float((expected.max() - expected[token]) / expected.std())
            require(below <= ERROR[self.dtype], f"token {i} is {below:.4f} of the spread below the reference's best")
            worst = max(worst, below)
        return worst


def spreads(got: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest difference, in standard deviations of what is ``expected``."""
    return float((got.float() - expected).abs().max() / expected.std())


class _InFloat32:
    """A specialist whose outputs the reference reads in float32, whatever it computes in."""

    def __init__(self, model: Any) -> None:
        self.model, self.config = model, model.config

    def __call__(self, ids: torch.Tensor, **options: Any) -> Any:
        out = self.model(ids, **options)
        return SimpleNamespace(hidden_states=[out.hidden_states[-1].float()], logits=out.logits.float())


def trial(setting: Setting, dtype: torch.dtype, templates: Templates | None = None, attention: str = "sdpa") -> Trial:
    """Three random specialists and the model fused of them by hand, as loaded from disk in ``dtype``."""
    if "flash" in attention and not is_flash_attn_2_available():
        raise Skipped("flash_attn is not installed")
    fused, *own = _loaded(setting, dtype, templates is not None)
    for model in (fused, *own):
        model.set_attn_implementation(attention)
    return Trial(fused, [_InFloat32(model) for model in own], templates, setting.device, dtype)


@cache
def _loaded(setting: Setting, dtype: torch.dtype, unlike: bool) -> list[Any]:
    """The fused model, then its specialists."""
    own = [tiny_llama(seed, **setting.sizes["answers"]) for seed in range(3)]
    models = [fuse_by_hand(own, UNLIKE if unlike else None), *own]
    for i, model in enumerate(models):
        with tempfile.TemporaryDirectory(dir=setting.folder) as folder:
            model.save_pretrained(folder)
            models[i] = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(setting.device).eval()
    return models


@torch.no_grad()
def logits(setting: Setting, dtype: torch.dtype, attention: str) -> dict[str, Any]:
    """Every position with one template; the last with unlike ones, alone and in a batch padded on the left."""
    alike, unlike = trial(setting, dtype, None, attention), trial(setting, dtype, UNLIKE, attention)
    ids = [20, 21, 22, 40, 41]
    got = alike.fused(torch.tensor([ids], device=setting.device)).logits[0]
    worst = {"one template": max(alike.error(got[t], alike.reference([ids[: t + 1]] * 3)) for t in range(len(ids)))}
    expected = [unlike.reference(unlike.own_ids(turns)) for turns in BATCH]
    single = [unlike.fused(torch.tensor([unlike.fused_ids(turns)], device=setting.device)).logits[0, -1] for turns in BATCH]
    padded = unlike.fused(**unlike.batch()).logits[:, -1]
    for name, rows in (("unlike templates", single), ("padded", padded)):
        worst[name] = max(unlike.error(row[:VOCAB], wanted) for row, wanted in zip(rows, expected, strict=True))
        require(all(row.softmax(-1)[VOCAB:].eq(0).all() for row in rows), "a slot token can be predicted")
    return {f"error, {name}": error for name, error in worst.items()}


@torch.no_grad()
def generate(setting: Setting, dtype: torch.dtype, attention: str, **options: Any) -> dict[str, Any]:
    """Batched, padded on the left, with unlike and with one template: as N separate models would go on, step by step."""
    found = {}
    for name, templates in (("unlike templates", UNLIKE), ("one template", None)):
        this = trial(setting, dtype, templates, attention)
        batch = this.batch()
        out = this.fused.generate(**batch, do_sample=False, max_new_tokens=NEW_TOKENS, **options)
        rows = out[:, batch["input_ids"].shape[1] :].tolist()
        answers = [row[: row.index(END) + 1] if END in row else row for row in rows]
        found[f"below the best, {name}"] = max(map(this.greedy_error, answers, BATCH))
    return found


def generate_compiled(setting: Setting, dtype: torch.dtype) -> dict[str, Any]:
    """With a static cache ``generate`` compiles by itself, on a GPU only."""
    if setting.device == "cpu":
        raise Skipped("transformers compiles on accelerators only")
    return generate(setting, dtype, "sdpa", cache_implementation="static")


@torch.no_grad()
def compiled_forward(setting: Setting, dtype: torch.dtype) -> dict[str, Any]:
    """torch.compile finds one whole graph, about as near to the float32 model as plain code is: it rounds at other places."""
    found = {}
    for name, templates in (("unlike templates", UNLIKE), ("one template", None)):
        torch.compiler.reset()
        this, exact = trial(setting, dtype, templates), trial(setting, torch.float32, templates)
        ids = torch.tensor([this.fused_ids(BATCH[2])], device=setting.device)
        ways = {"compiled": torch.compile(this.fused.forward, fullgraph=True), "plain": this.fused}
        expected, *got = (run(ids, use_cache=False).logits[0, :, :VOCAB] for run in (exact.fused, *ways.values()))
        errors = [spreads(logits, expected) for logits in got]
        allowed = 1.5 * errors[1] + ERROR[torch.float32]
        require(errors[0] <= allowed, f"compiled logits are off by {errors[0]:.4f} of their spread, plain by {errors[1]:.4f}")
        found |= {f"{way}, {name}": error for way, error in zip(ways, errors, strict=True)}
    return found


@torch.no_grad()
def continuous_batching(setting: Setting, dtype: torch.dtype) -> dict[str, Any]:
    """Requests of unlike length served together, with one common template."""
    this = trial(setting, dtype)
    prompts = [this.fused_ids(turns) for turns in BATCH]
    out = this.fused.generate_batch(
        prompts,
        generation_config=GenerationConfig(max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=NEVER, pad_token_id=0),
        continuous_batching_config=ContinuousBatchingConfig(num_blocks=32, max_batch_tokens=48),
        warmup=False,
    )
    answers = [out[key].generated_tokens for key in sorted(out, key=lambda key: int(key.rsplit("_", 1)[-1]))]
    require([len(answer) for answer in answers] == [NEW_TOKENS] * len(prompts), f"answers are cut short: {answers}")
    return {"below the best": max(map(this.greedy_error, answers, BATCH))}


def checks() -> list[Check]:
    """Each in both precisions, where the attention has them."""
    found = []
    for dtype, attentions in ATTENTIONS.items():
        kind = str(dtype).removeprefix("torch.")
        plain: dict[str, Callable[..., Any]] = {
            **{f"logits, {name}": partial(logits, attention=name) for name in attentions},
            **{f"generate, {name}": partial(generate, attention=name) for name in attentions},
            "generate, static cache": partial(generate, attention="sdpa", cache_implementation="static", disable_compile=True),
            "generate, static cache, compiled": generate_compiled,
            "compiled forward": compiled_forward,
            "continuous batching": continuous_batching,
        }
        found += [Check(f"answers: {name}, {kind}", partial(run, dtype=dtype)) for name, run in plain.items()]
    return found
