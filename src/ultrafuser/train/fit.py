"""Trains one model for one stage: a new Trainer, resumed from the newest checkpoint if there is one."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import TrainingArguments, set_seed

from ultrafuser.data.collate import Collator
from ultrafuser.data.dataset import ConversationDataset
from ultrafuser.errors import UserError
from ultrafuser.io import require_space
from ultrafuser.train.callbacks import LogBeforeSaving, ProgressBar, StopOnInterrupt
from ultrafuser.train.checkpoint import checkpoints
from ultrafuser.train.claim import claim, decisive_facts
from ultrafuser.train.diverged import risen_loss
from ultrafuser.train.load import computes_in_bf16
from ultrafuser.train.moves import set_in_motion
from ultrafuser.train.processes import any_process, process_state
from ultrafuser.train.stage import Stage, TrainSettings, split_batch
from ultrafuser.train.trainer import StageTrainer, checkpoint_bytes

logger = logging.getLogger(__name__)
DEFAULT = TrainSettings()


def train_stage(
    model: Any,
    tokenizer: Any,
    dataset: ConversationDataset,
    stage: Stage,
    work_dir: str | Path,
    settings: TrainSettings = DEFAULT,
) -> list[dict[str, Any]]:
    """Train ``model`` in place and return the log lines; with ``moves="all"`` it may be any causal LM. It ends in eval mode.

    ``work_dir`` gets ``metrics.jsonl``, ``settings.json`` and checkpoints, which stay. Called again with the same arguments and a
    model as it was at first, it goes on from the newest checkpoint. A log line has ``stage``, ``step``, ``loss``,
    ``loss/<domain>``, ``learning_rate``, ``grad_norm``, ``tokens_per_second``, ``passes/<domain>`` and, for fused models,
    ``gate/<domain>/<specialist>``, ``gate_entropy/<domain>`` and ``gate_entropy`` (nats).

    Raises:
        UserError: the batch cannot be shared, the stage does not suit the model, something else lies in ``work_dir``, training
            has diverged, or the disk is too full.
        KeyboardInterrupt: after Ctrl-C, once a checkpoint is saved.
    """
    folder = Path(work_dir)
    args = stage_arguments(dataset, stage, folder, settings)
    claim(folder, decisive_facts([stage], dataset, settings), overwrite=settings.overwrite)
    set_seed(settings.seed)  # adapters start from random numbers
    uses_cache = model.config.use_cache
    trained = set_in_motion(model, stage)
    bar = ProgressBar(stage.name)
    with StopOnInterrupt() as stop:
        trainer = StageTrainer(
            model=trained,
            args=args,
            dataset=dataset,
            collator=Collator(_pad_token_id(tokenizer)),
            stage=stage,
            callbacks=[stop, LogBeforeSaving(), *([bar] if settings.progress else [])],
            warn=logger.warning,
        )
        _run(trainer, folder, settings, bar)
    if any_process(stop.asked, args.device):
        _say_goodbye(trainer, stage)
    _hand_back(trainer, model, uses_cache)
    history = trainer.history()
    if trainer.is_world_process_zero() and (doubt := risen_loss(history, stage)):
        logger.warning(doubt)
    return history


def _run(trainer: StageTrainer, folder: Path, settings: TrainSettings, bar: ProgressBar) -> None:
    if trainer.is_fsdp_enabled and trainer.stage.moves == "lora":
        raise UserError(f"stage '{trainer.stage.name}': moves='lora' cannot be sharded by FSDP; use moves='all'")
    done = checkpoints(folder)
    require_space(folder, checkpoint_bytes(trainer.model) * (settings.keep_checkpoints + 1 - len(done)))
    try:
        trainer.train(resume_from_checkpoint=str(done[-1]) if done else None)
    finally:
        bar.close()
    trainer.write_metrics()


def _hand_back(trainer: StageTrainer, model: Any, uses_cache: bool) -> None:
    """Make ``model`` an ordinary model again: adapters merged, the Trainer's wrappers off."""
    trained = trainer.accelerator.unwrap_model(trainer.model_wrapped, keep_fp32_wrapper=False, keep_torch_compile=False)
    if trainer.stage.moves == "lora":
        trained.merge_and_unload()  # in place
    model.config.use_cache = uses_cache
    model.eval()


def _say_goodbye(trainer: StageTrainer, stage: Stage) -> None:
    if trainer.is_world_process_zero():
        Console(stderr=True).print(
            f"stopped and saved at step {trainer.state.global_step} of {stage.steps} of stage '{stage.name}'; "
            "give the same command again to go on",
            soft_wrap=True,
        )
    raise KeyboardInterrupt


def _pad_token_id(tokenizer: Any) -> int:
    for token_id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return int(token_id)
    raise UserError("the tokenizer has neither a pad nor an end token; set tokenizer.pad_token")


def stage_arguments(dataset: ConversationDataset, stage: Stage, folder: Path, settings: TrainSettings) -> TrainingArguments:
    """The Trainer's arguments for a stage; writes nothing. Raises `UserError` for what only this machine can tell is wrong."""
    state = process_state()
    micro, accumulation = split_batch(stage.per_domain * len(dataset.domains), state.num_processes, settings.micro_batch_size)
    new_name = "activation_checkpointing" in TrainingArguments.__dataclass_fields__
    # Nothing is stored for frozen layers, so there is nothing to compute again when only the gate moves.
    checkpointing: dict[str, Any] = {
        "activation_checkpointing" if new_name else "gradient_checkpointing": settings.gradient_checkpointing
        and stage.moves != "gate"
    }
    on_cpu = state.device.type == "cpu"
    args = TrainingArguments(
        output_dir=str(folder),
        max_steps=stage.steps,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=accumulation,
        average_tokens_across_devices=True,
        optim="adamw_torch_fused",
        learning_rate=stage.learning_rate,
        lr_scheduler_type=stage.schedule,
        warmup_steps=stage.warmup_steps,
        weight_decay=stage.weight_decay,
        max_grad_norm=stage.max_grad_norm,
        bf16=computes_in_bf16(settings),
        torch_compile=settings.torch_compile,
        **checkpointing,
        logging_steps=settings.log_every,
        logging_first_step=True,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=settings.save_every,
        save_total_limit=settings.keep_checkpoints,
        report_to=list(settings.report_to) or "none",
        run_name=f"{folder.parent.name}/{folder.name}",
        disable_tqdm=True,
        seed=settings.seed,
        remove_unused_columns=False,
        dataloader_num_workers=settings.num_workers,
        dataloader_pin_memory=not on_cpu,
        ddp_find_unused_parameters=False,
        use_cpu=on_cpu,
    )
    args._n_gpu = 1  # several GPUs in one process would each take a whole micro-batch; one process per GPU shares them
    return args
