"""The Hugging Face Trainer with class-balanced batches, metrics per domain and checkpoints of what moves.

Loss: the sum over answer tokens divided by their number in the whole global batch, over all micro-batches and processes
(``num_items_in_batch``), so that neither changes the gradient. Nothing here knows how the model is fused: an ordinary causal LM
trains as well, which is how specialists are made.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PrinterCallback, Trainer, TrainingArguments

from ultrafuser.data.balance import BalancedSampler
from ultrafuser.data.collate import Collator
from ultrafuser.data.dataset import ConversationDataset
from ultrafuser.errors import UserError
from ultrafuser.io import full_disk_told, require_space, write_text
from ultrafuser.train.checkpoint import TRAINABLE, new_checkpoint
from ultrafuser.train.diverged import require_finite_metrics, require_finite_weights
from ultrafuser.train.metrics import MetricWindow, gate_doubt
from ultrafuser.train.moves import is_fused, moving
from ultrafuser.train.stage import Stage

METRICS_FILE = "metrics.jsonl"
CHECKPOINT_BYTES = 12  # per moving parameter in float32: itself and AdamW's two moments


class StageTrainer(Trainer):
    """One stage. Args: as the Trainer's, and the stage; ``warn`` is told, once, when the gate neglects specialists."""

    model: Any

    def __init__(
        self,
        *,
        model: Any,
        args: TrainingArguments,
        dataset: ConversationDataset,
        collator: Collator,
        stage: Stage,
        callbacks: list[Any],
        warn: Callable[[str], None],
    ):
        self.stage, self.warn, self.folder = stage, warn, Path(str(args.output_dir))
        self.sampler = BalancedSampler(dataset.domain_ids, per_domain=stage.per_domain, steps=stage.steps, seed=args.seed)
        super().__init__(model=model, args=args, data_collator=collator, train_dataset=dataset, callbacks=callbacks)
        self.remove_callback(PrinterCallback)
        self.fused = is_fused(model)
        self.specialists: list[str] = list(model.config.specialist_names) if self.fused else []
        if self.is_fsdp_enabled and self.fused:
            # The units to shard: those layer classes that this model has, of all that fused models may have.
            layers = {type(layer).__name__ for layer in model.model.layers}
            self.accelerator.state.fsdp_plugin.transformer_cls_names_to_wrap = sorted(layers)
        self.window = MetricWindow(dataset.domains, self.specialists, self.args.device)
        self.warned = self.wrote_metrics = False

    # Batches

    def _get_train_sampler(self, train_dataset: Any = None) -> BalancedSampler:
        return self.sampler

    # Loss and metrics

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The batch's share of the global mean loss; adds the batch to the metrics. ``inputs``: a `Collator` batch."""
        self.window.start_clock()
        inputs = dict(inputs)
        domain_ids = inputs.pop("domain_ids")
        if self.stage.moves == "gate":
            self.model.model.layers.eval()  # frozen specialists are to be as they are in use: no dropout
        _unshard_head(self.model)
        asked = {"output_gate_weights": True, "output_token_losses": True} if self.fused else {}
        loss, outputs = super().compute_loss(model, inputs | asked, return_outputs=True, num_items_in_batch=num_items_in_batch)
        labels = inputs["labels"]
        losses = outputs.token_losses if self.fused else shifted_losses(outputs.logits, labels)
        gate_weights = outputs.gate_weights if self.fused else None
        self.window.add(domain_ids, labels, losses, gate_weights, inputs["attention_mask"].sum())
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the Trainer's, with the metrics added; every training log line is also a line of ``metrics.jsonl``.

        Raises `UserError`, on all processes alike, if training has diverged.
        """
        if "loss" not in logs:  # the summary at the end
            return
        domains = self.window.domains
        logs |= self.window.drain(lambda sums: self.accelerator.reduce(sums, reduction="sum"))
        passes = self.sampler.passes(self.state.global_step)
        logs |= {f"passes/{domain}": float(count) for domain, count in zip(domains, passes, strict=True)}
        require_finite_metrics(logs, self.stage, self.state.global_step, self.folder)
        super().log(logs, start_time)
        self._add_to_metrics()
        doubt = gate_doubt(logs, domains, self.specialists)
        if doubt and not self.warned and self.is_world_process_zero():
            self.warned = True
            self.warn(f"step {self.state.global_step}: {doubt}")

    def history(self) -> list[dict[str, Any]]:
        """The log lines so far, from before an interruption as well."""
        return [{"stage": self.stage.name, **line} for line in self.state.log_history]

    def write_metrics(self) -> None:
        """Write ``metrics.jsonl`` anew from the history, which knows nothing from after the checkpoint that was resumed."""
        if self.is_world_process_zero():
            write_text(self.folder / METRICS_FILE, "".join(json.dumps(line) + "\n" for line in self.history()))

    def _add_to_metrics(self) -> None:
        """Write the newest line. The first time the whole file: there may be lines that were logged but not saved."""
        if not self.wrote_metrics:
            self.write_metrics()
        elif self.is_world_process_zero():
            with open(self.folder / METRICS_FILE, "a", encoding="utf-8") as file:  # in time to watch, no matter if cut short
                file.write(json.dumps(self.history()[-1]) + "\n")
        self.wrote_metrics = True

    # Checkpoints

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        require_finite_weights(moving(self.model), self.stage, self.state.global_step, self.folder)
        require_space(self.folder, checkpoint_bytes(self.model))
        main, barrier, keep = self.args.should_save, self.accelerator.wait_for_everyone, self.args.save_total_limit or 1
        checkpoint = new_checkpoint(self.folder, self.state.global_step, keep=keep, main=main, barrier=barrier)
        with checkpoint as new, full_disk_told(new):
            if main and not self.is_fsdp_enabled:
                weights = {name: parameter.detach().cpu().contiguous() for name, parameter in moving(self.model).items()}
                save_file(weights, new / TRAINABLE)
            self._save_optimizer_and_scheduler(str(new))  # writes sharded parameters too
            self._save_scaler(str(new))
            self._save_rng_state(str(new))
            if main:
                self.state.save_to_json(str(new / "trainer_state.json"))
        self.window.stop_clock()  # it is empty: a log line precedes every checkpoint

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        stored, wanted = load_file(Path(resume_from_checkpoint) / TRAINABLE), moving(self.model)
        if stored.keys() != wanted.keys():
            raise UserError(f"{resume_from_checkpoint}: does not hold what this stage moves; start anew with --overwrite")
        with torch.no_grad():
            for name, parameter in wanted.items():
                parameter.copy_(stored[name])


def checkpoint_bytes(model: Any) -> int:
    """Size of one checkpoint of what moves in ``model``."""
    return CHECKPOINT_BYTES * sum(parameter.numel() for parameter in moving(model).values())


def shifted_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Loss of predicting each token at that token's own index, for metrics: logits (B, T, V), labels (B, T) -> (B, T)."""
    with torch.no_grad():
        losses = F.cross_entropy(logits[:, :-1].transpose(1, 2).float(), labels[:, 1:], reduction="none")
    return F.pad(losses, (1, 0))


def _unshard_head(model: Any) -> None:
    """Under FSDP2, gather the lm_head: the loss reads its weight without calling the module, so no hook does it."""
    head: Any = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if hasattr(head, "unshard"):
        head.unshard()
