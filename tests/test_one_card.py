"""benchmarks/one_card.py: its gate stage runs, at a size of nothing, and its peak counts what is held and not what is mapped."""

from __future__ import annotations

import argparse
import json
import mmap
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import one_card

SIZE = 200 * 2**20


def test_the_gate_stage_runs_over_4_bit_specialists(tmp_path, monkeypatch):
    """Catches a script that no longer fits the recipe, the product's functions or bitsandbytes, unseen while there is no card."""
    pytest.importorskip("bitsandbytes")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    tiny = LlamaConfig(
        vocab_size=300, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, dtype="bfloat16"
    )
    tiny.architectures = ["LlamaForCausalLM"]
    monkeypatch.setattr(one_card, "llama_3_1_8b", lambda layers: tiny)
    one_card.make_fused(tmp_path, layers=1)
    one_card.write_data(tmp_path / "data.jsonl", length=64)
    found = one_card.train_gate(tmp_path, argparse.Namespace(device="cpu", max_length=64, steps=1))
    assert [json.loads(line)["step"] for line in (tmp_path / "trained" / "metrics.jsonl").open()] == [1]
    assert 0 < found["planned_gb"] < found["peak_gb"] < 10  # the process holds torch too


def test_the_peak_counts_what_is_held_and_not_mapped_files(tmp_path):
    """Catches a peak that misses what a process holds, and one that takes a file's pages for the model's."""
    file = tmp_path / "weights"
    file.write_bytes(bytes(SIZE))
    with one_card.peak_memory("cpu") as before:
        pass
    with file.open("rb") as opened, one_card.peak_memory("cpu") as mapped:
        pages = mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ)
        assert sum(pages[:: mmap.PAGESIZE]) == 0
    with one_card.peak_memory("cpu") as held:
        block = bytearray(b"x") * SIZE
    assert len(block) == SIZE
    assert mapped["peak_gb"] < before["peak_gb"] + 0.1
    assert held["peak_gb"] > before["peak_gb"] + SIZE / 1e9 * 0.9


def test_tables_that_are_mapped_are_held(tmp_path):
    """Catches a peak without the two tables: loaded to a CPU they stay pages of their file, on a card they cannot."""
    save_file({"weight": torch.ones(SIZE // 4, 1)}, tmp_path / "table.safetensors")
    table = torch.nn.Module()
    table.weight = torch.nn.Parameter(load_file(tmp_path / "table.safetensors")["weight"])
    with one_card.peak_memory("cpu") as mapped:
        assert table.weight.sum() == SIZE // 4
    with one_card.peak_memory("cpu") as held:
        one_card.hold_tables(table)
    assert held["peak_gb"] > mapped["peak_gb"] + SIZE / 1e9 * 0.9
