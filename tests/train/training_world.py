"""What the tests of training share: a tiny fused model on disk, conversations, and how to run things in other processes."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load_file

from tiny import tiny_specialist
from ultrafuser.data.conversations import Conversation
from ultrafuser.data.dataset import ConversationDataset
from ultrafuser.model.fuse import fuse
from ultrafuser.train.run import train
from ultrafuser.train.stage import Stage, TrainSettings

DOMAINS = ["text", "code", "math"]
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
STAGES = (
    Stage("gate", moves="gate", steps=6, per_domain=4, learning_rate=1e-2),
    Stage("joint", moves="all", steps=6, per_domain=2, learning_rate=1e-3),
)
QUIET = {"progress": False, "log_every": 2, "save_every": 2, "micro_batch_size": 4}


def make_fused(folder: Path, **config: Any) -> Path:
    """Three tiny specialists with unlike templates, fused."""
    templates = ["user", "inst", "chatml"]
    own = [tiny_specialist(folder / name, seed=j, template=templates[j], **(SMALL | config)) for j, name in enumerate(DOMAINS)]
    return fuse(own, folder / "fused", names=DOMAINS)


def conversations(count: int = 10) -> list[Conversation]:
    """``count`` short conversations of every domain."""
    return [
        Conversation(
            domain, [message("user", f"What is the {domain} sum of {i}?"), message("assistant", f"It is {i * k}")], f"{i}"
        )
        for i in range(count)
        for k, domain in enumerate(DOMAINS, 2)
    ]


def message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def make_dataset(examples: list[tuple[int, list[int], list[bool]]], domains: list[str]) -> ConversationDataset:
    """A data set from (domain id, tokens, which are answers) by hand."""
    lengths = [len(tokens) for _, tokens, _ in examples]
    return ConversationDataset(
        domains=domains,
        domain_ids=np.array([domain for domain, _, _ in examples], np.int32),
        tokens=np.array([token for _, tokens, _ in examples for token in tokens], np.int32),
        is_answer=np.array([is_answer for _, _, answers in examples for is_answer in answers], np.bool_),
        offsets=np.cumsum([0, *lengths]),
        max_length=64,
        cut={},
        dropped={},
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint, by name, but for one that nothing depends on.

    The gate's last bias shifts all scores alike, so its gradient is rounding noise, which AdamW scales up.
    """
    found = {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}
    found.pop("model.gate.linear_out.bias", None)
    return found


def in_process(function: Any, *args: Any) -> Any:
    """Start ``function`` in a fresh process that has imported the package already (by a fork server); returns the process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ultrafuser.train.run", "peft"])  # the test directory is not on its path
    process = context.Process(target=_single_threaded, args=(function, *args))
    process.start()
    return process


def _single_threaded(function: Any, *args: Any) -> None:
    torch.set_num_threads(1)
    function(*args)


def run_training(fused: Path, out: Path, stages: tuple[Stage, ...] = STAGES, settings: dict[str, Any] | None = None) -> None:
    """`train` on `conversations`, quietly."""
    train(fused, conversations(), out, stages=stages, settings=TrainSettings(**(QUIET | (settings or {}))))


def run_as_rank(rank: int, world: int, port: int, *args: Any) -> None:
    """`run_training` as one of ``world`` processes, in the environment that ``accelerate launch --cpu`` makes."""
    os.environ |= {
        "ACCELERATE_USE_CPU": "true",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    run_training(*args)


def run_as_fsdp_rank(rank: int, world: int, port: int, *args: Any) -> None:
    """`run_as_rank`, sharded by FSDP2, which Accelerate offers on accelerators only: so it is told here that this is one."""
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedType

    initialise = AcceleratorState.__init__

    def initialise_sharded(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        initialise(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin

    AcceleratorState.__init__ = initialise_sharded
    config = yaml.safe_load((Path(__file__).parents[2] / "accelerate_configs" / "fsdp2.yaml").read_text())["fsdp_config"]
    os.environ |= {name.upper(): str(value).lower() if isinstance(value, bool) else str(value) for name, value in config.items()}
    os.environ |= {"ACCELERATE_USE_FSDP": "true", "FSDP_SYNC_MODULE_STATES": "true"}
    run_as_rank(rank, world, port, *args)
