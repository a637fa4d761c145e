"""What the tests of training share: a tiny fused model on disk, conversations, and how to run things in other processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import load_file
from torch.distributed import TCPStore

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
ONE_STEP = (Stage("gate", moves="gate", steps=1, per_domain=1),)
TWO_STEPS = (*ONE_STEP, Stage("joint", moves="all", steps=1, per_domain=1))
PATIENCE = 600.0  # seconds: a cold fork server alone may take a minute on a busy machine
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


def write_data(path: Path, examples: list[Conversation] | None = None) -> Path:
    """``examples`` as a JSONL file, by default `conversations`."""
    lines = [json.dumps({"domain": one.domain, "messages": one.messages}) for one in examples or conversations()]
    path.write_text("\n".join(lines) + "\n")
    return path


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


def ended(processes: Sequence[Any], kill_when: Callable[[], bool] = lambda: False, patience: float = PATIENCE) -> list[int]:
    """The exit codes of processes that have ended: by themselves, killed when ``kill_when`` says so, or when one of them failed.

    Then the rest would wait for it for ever. None is left running, also when they do not end in ``patience`` seconds.
    """
    deadline = time.monotonic() + patience
    try:
        while alive := [process for process in processes if process.is_alive()]:
            if kill_when() or any(process.exitcode for process in processes):
                break
            assert time.monotonic() < deadline, f"{', '.join(process.name for process in alive)} did not end in {patience:g} s"
            wait([process.sentinel for process in alive], timeout=0.05)
    finally:
        for process in processes:
            process.kill()
            process.join()
    return [process.exitcode for process in processes]


def run_ranks(function: Any, *args: Any, kill_when: Callable[[], bool] = lambda: False) -> list[int]:
    """`ended` for two processes that run ``function(rank, 2, port, *args)`` together: `run_as_rank` or the like.

    They meet at a store that this process serves, as they do under ``accelerate launch``: so its port is never free for others.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    return ended([in_process(function, rank, 2, store.port, *args) for rank in range(2)], kill_when)


def start(model: Path, data: Any, out: Path | str, stages: Any = ONE_STEP, domains: Any = None, **changes: Any) -> Path:
    """`train`, quietly, with these ``changes`` of the settings."""
    return train(model, data, out, stages=stages, settings=TrainSettings(**(QUIET | changes)), domains=domains)


def run_training(fused: Path, out: Path, stages: tuple[Stage, ...] = STAGES, settings: dict[str, Any] | None = None) -> None:
    """`train` on `conversations`, quietly."""
    start(fused, conversations(), out, stages, **(settings or {}))


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
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # who launches serves that port
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
