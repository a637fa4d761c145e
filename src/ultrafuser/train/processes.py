"""The processes that train together, as ``accelerate launch`` has started them: often just this one."""

from __future__ import annotations

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env


def process_state() -> PartialState:
    """This process's place among those that train together; joins them at the first call.

    Accelerate must be told that they are to run on the CPU, or it takes a process without an accelerator for a lone one.
    """
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    return PartialState(cpu=on_cpu)


def any_process(flag: bool, device: torch.device) -> bool:
    """Is the flag set on any process? They must all stop at the same step, or the rest would wait for ever."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return flag
    flags = torch.tensor(int(flag), device=device)
    torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
    return bool(flags.item())
