"""How fast is `fuse` against copying the same files, and how much memory does it take?

Writes random specialists, then in alternating rounds copies them with ``cp`` and fuses them, each time from a page cache
that has been asked to forget the sources, and with everything flushed to the disk at the end. Prints JSON:

    speed_ratio      copying time / fusing time (target: at least 0.7)
    extra_memory_mb  peak resident memory of `fuse` above that of the process before it (target: at most largest_tensor_mb + 500)

    python benchmarks/fuse_vs_cp.py --megabytes 800 --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _memory import host_memory

NAMES = ("text", "code", "math")
TEMPLATES = ("ultralm2", "alpaca", "plain")  # unlike ones, so that there are slot rows to build


def make_specialist(folder: Path, megabytes: int, vocab_size: int, seed: int) -> None:
    """A random bfloat16 Llama of about this size, with a tokenizer of ``vocab_size`` tokens."""
    import torch
    from _written import write_specialist
    from transformers import LlamaConfig

    width = 1024
    layer, tables = 2 * (4 * width**2 + 3 * width * 2816), 4 * vocab_size * width
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        intermediate_size=2816,
        num_hidden_layers=max(1, round((megabytes * 1e6 - tables) / layer)),
        num_attention_heads=8,
        num_key_value_heads=8,
        dtype=torch.bfloat16,
        architectures=["LlamaForCausalLM"],
    )
    write_specialist(folder, config, seed)


def forget(folder: Path) -> None:
    """Ask the page cache to forget the files of ``folder``."""
    for file in folder.rglob("*"):
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def time_copy(work: Path) -> float:
    """Seconds to copy all specialists with ``cp`` and flush the copies."""
    target = work / "copy"
    start = time.perf_counter()
    subprocess.run(["cp", "-r", *(str(work / name) for name in NAMES), f"{target}/"], check=True)
    for file in target.rglob("*.safetensors"):
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    return time.perf_counter() - start


def fuse_here(work: Path) -> dict[str, float]:
    """Fuse in this process: seconds (imports left out), and megabytes of peak memory above those before."""
    from ultrafuser.model.fuse import FuseOptions, fuse

    before = host_memory("VmRSS")
    start = time.perf_counter()
    fuse([work / name for name in NAMES], work / "fused", options=FuseOptions(templates=TEMPLATES))
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "extra_memory_mb": (host_memory("VmHWM") - before) / 1e6}


def one_round(work: Path) -> tuple[float, dict[str, float]]:
    """Copy, then fuse in a fresh process; both outputs are removed again."""
    (work / "copy").mkdir()
    forget(work)
    copying = time_copy(work)
    shutil.rmtree(work / "copy")
    forget(work)
    command = [sys.executable, __file__, "--fuse", str(work)]
    fusing = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    shutil.rmtree(work / "fused")
    return copying, fusing


def measure(work: Path, rounds: int, vocab_size: int) -> dict[str, object]:
    """All rounds, summed up by their medians."""
    results = [one_round(work) for _ in range(rounds)]
    copying = statistics.median(copy for copy, _ in results)
    fusing = statistics.median(fused["seconds"] for _, fused in results)
    size = sum(file.stat().st_size for file in work.rglob("*.safetensors"))
    return {
        "benchmark": "fuse_vs_cp",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "copied_mb": round(size / 1e6),
        "copy_seconds": round(copying, 3),
        "fuse_seconds": round(fusing, 3),
        "speed_ratio": round(copying / fusing, 3),
        "all_ratios": [round(copy / fused["seconds"], 3) for copy, fused in results],
        "extra_memory_mb": round(max(fused["extra_memory_mb"] for _, fused in results), 1),
        "largest_tensor_mb": round(vocab_size * 1024 * len(NAMES) * 2 / 1e6, 1),
    }


def main() -> None:
    """Read the options, make the specialists, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=800, help="size of each specialist; small ones show the fixed cost")
    parser.add_argument("--vocab-size", type=int, default=16000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, help="where to write (default: the directory for temporary files)")
    parser.add_argument("--fuse", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.fuse:
        print(json.dumps(fuse_here(arguments.fuse)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        for seed, name in enumerate(NAMES):
            make_specialist(Path(folder) / name, arguments.megabytes, arguments.vocab_size, seed)
        print(json.dumps(measure(Path(folder), arguments.rounds, arguments.vocab_size), indent=2))


if __name__ == "__main__":
    main()
