"""Do three Llama 3.1 8B models fit one 24 GB card while their gate is trained, as recipes/llama3.1-8b-24gb.yaml says?

Writes one random model of that shape (16 GB) and takes it three times over, by links; fuses them with the product's `fuse` (48 GB
more of disk), and trains the gate in a process of its own, with the recipe's settings: specialists in 4 bit, bfloat16,
checkpointing, one conversation of full length at a time. Prints JSON:

    peak_gb      of what that process held: allocated memory on CUDA; elsewhere resident memory less the pages of mapped files,
                 the model's own weights copied out of theirs so that they count
    planned_gb   what `ultrafuser run --dry-run` says of the stage, which leaves activations out
    target       24, the card

    python benchmarks/one_card.py --device cuda --work DIR
    python benchmarks/one_card.py --max-length 16 --work DIR           on a CPU: an hour at most
    python benchmarks/one_card.py --layers 2 --work DIR                a CPU's minutes: what full-length activations take
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from _models import machine

RECIPE = Path(__file__).parents[1] / "recipes" / "llama3.1-8b-24gb.yaml"
CARD_GB = 24
PERIOD = 0.02  # seconds between two looks at the host's memory


def llama_3_1_8b(layers: int) -> Any:
    """The published configuration of Llama 3.1 8B; of fewer layers where asked for."""
    import torch
    from transformers import LlamaConfig

    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
    return LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=131072,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "llama3", "rope_theta": 500000.0, **scaling},
        dtype=torch.bfloat16,
        architectures=["LlamaForCausalLM"],
        bos_token_id=0,
        eos_token_id=1,
    )


def make_fused(work: Path, layers: int) -> None:
    """Fuse three specialists of one random checkpoint into ``work / "fused"``."""
    from _written import write_specialist

    from ultrafuser.model.fuse import FuseOptions, fuse

    first, *others = (work / name for name in ("text", "code", "math"))
    write_specialist(first, llama_3_1_8b(layers), seed=0)
    for folder in others:
        folder.mkdir()
        for file in first.iterdir():
            os.link(file, folder / file.name)
    fuse([first, *others], work / "fused", options=FuseOptions(templates=["plain"] * 3))


def write_data(file: Path, length: int) -> None:
    """One conversation of each domain, as long as may be: its tokens are bytes."""
    question, answer = "?" * (length // 4), "!" * (length // 2)
    rows = [{"domain": name, "prompt": question, "response": answer} for name in ("text", "code", "math")]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n")


@contextmanager
def peak_memory(device: str) -> Iterator[dict[str, float]]:
    """Fills in ``peak_gb`` of what is done inside."""
    import torch

    peak: dict[str, float] = {}
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        yield peak
        peak["peak_gb"] = torch.cuda.max_memory_allocated() / 1e9
        return
    highest, done, last = 0, threading.Event(), False

    def watch() -> None:
        nonlocal highest, last
        while not last:
            last = done.wait(PERIOD)  # and once more at the end
            highest = max(highest, _anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
    peak["peak_gb"] = highest / 1e9


def _anonymous() -> int:
    """Bytes that this process holds and no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def train_gate(work: Path, options: argparse.Namespace) -> dict[str, float]:
    """The recipe's gate stage, shortened, in this process."""
    from transformers import AutoTokenizer

    from ultrafuser.config import load_recipe
    from ultrafuser.data.conversations import read_conversations
    from ultrafuser.data.dataset import encode_dataset
    from ultrafuser.run.settings import train_settings
    from ultrafuser.train.fit import train_stage
    from ultrafuser.train.load import load_model

    overrides = [f"data.train=[{work / 'data.jsonl'}]", f"data.max_length={options.max_length}"]
    recipe = load_recipe(RECIPE, overrides)
    stage = replace(recipe.train.stages[0], steps=options.steps, per_domain=1)
    settings = replace(train_settings(recipe), progress=False)
    tokenizer = AutoTokenizer.from_pretrained(work / "fused")
    lessons = read_conversations(work / "data.jsonl")
    dataset = encode_dataset(lessons, tokenizer, domains=recipe.data.domains, max_length=options.max_length, progress=False)
    start = time.monotonic()
    with peak_memory(options.device) as peak:
        model = load_model(work / "fused", stage, settings)
        if options.device == "cpu":
            hold_tables(model)
        train_stage(model, tokenizer, dataset, stage, work / "trained", settings)
    return peak | {"seconds": round(time.monotonic() - start), "planned_gb": planned(recipe, work / "fused") / 1e9}


def hold_tables(model: Any) -> None:
    """Copy what is not quantised into memory of its own: loaded to a CPU it stays mapped from its file, which a card cannot."""
    for parameter in model.parameters():
        if parameter.is_floating_point():  # what bitsandbytes has packed is held already
            parameter.data = parameter.data.clone()


def planned(recipe: Any, fused: Path) -> float:
    """Bytes of the gate stage as ``--dry-run`` counts them."""
    from transformers import AutoConfig

    from ultrafuser.run.sizes import Sizes

    return Sizes(recipe, AutoConfig.from_pretrained(fused), 2, [2, 2, 2]).needs(recipe.train.stages[0]).memory


def measure(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Make the fused model, train its gate in a fresh process, and sum up."""
    if not (work / "fused").exists():
        make_fused(work, options.layers)
    write_data(work / "data.jsonl", options.max_length)
    shutil.rmtree(work / "trained", ignore_errors=True)  # of an earlier call: its checkpoint would be gone on with
    words = [f"--{name.replace('_', '-')}={value}" for name, value in vars(options).items() if name not in ("work", "train")]
    cpu = {"ACCELERATE_USE_CPU": "true"} if options.device == "cpu" else {}
    command = [sys.executable, __file__, *words, "--train", str(work)]
    done = subprocess.run(command, env=os.environ | cpu, check=True, stdout=subprocess.PIPE, text=True)
    found = {name: round(value, 2) for name, value in json.loads(done.stdout.splitlines()[-1]).items()}
    return {"benchmark": "one_card", **found, "target": CARD_GB, "reached": found["peak_gb"] < CARD_GB}


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--layers", type=int, default=32, help="of each specialist")
    parser.add_argument("--max-length", type=int, default=1024, help="tokens of a conversation")
    parser.add_argument("--steps", type=int, default=2, help="each of one conversation of every domain")
    parser.add_argument("--work", type=Path, help="where to write; a fused model that is there already is used again")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        print(json.dumps(train_gate(options.train, options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        settings = {name: value for name, value in vars(options).items() if name not in ("work", "train")}
        print(json.dumps(measure(options, work) | {"settings": settings, "machine": machine(options.device)}, indent=2))


if __name__ == "__main__":
    main()
