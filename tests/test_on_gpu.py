"""benchmarks/on_gpu.py: all its checks on a GPU; elsewhere that each runs and can fail, and that none takes others along."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import _checks
import _gpu_answers
import on_gpu
from _checks import Check, Failed, Setting, Skipped

CHECKS = {check.name: check for check in on_gpu.all_checks()}


def run(name: str, setting: Setting) -> None:
    outcome = _checks.run_check(CHECKS[name], setting)
    if outcome.result == "skipped":
        pytest.skip(outcome.found["reason"])
    assert outcome.result in ("ok", "missed"), outcome.found  # the targets are for other sizes


@pytest.mark.gpu
@pytest.mark.parametrize("name", CHECKS)
def test_on_the_gpu(name, tmp_path):
    """Catches what goes wrong on a GPU only: kernels of low precision, compiling, atomics, memory, speed below the targets."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    run(name, Setting("cuda", tmp_path, on_gpu.SCALES["small"]))


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
def test_every_check_runs(name, tmp_path, monkeypatch):
    """Catches a check that breaks unseen while there is no GPU to run it on."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    run(name, Setting("cpu", tmp_path, on_gpu.SCALES["tiny"]))


@pytest.mark.parametrize("words", [["nonsense"], ["answers", "nonsense"]])
def test_a_word_that_no_check_has_is_told(words, monkeypatch, capsys):
    """Catches a mistyped name that is taken for checks that all went well."""
    for variable in "ACCELERATE_USE_CPU", "HF_HUB_OFFLINE":
        monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(_checks, "run_all", lambda *_: [])
    monkeypatch.setattr(sys, "argv", ["on_gpu.py", "--device", "cpu", "--scale", "tiny", "--only", *words])
    assert on_gpu.main() == 2
    assert capsys.readouterr().err == "--only nonsense: in the name of no check; --list prints the names\n"


def test_a_check_that_fails_loses_no_other(tmp_path, capsys):
    """Catches a broken check that ends the run, a skip counted as success, and results that wait for the last check."""

    def broken(setting: Setting) -> dict[str, object]:
        done = json.loads((tmp_path / "out.json").read_text())["checks"]
        assert [check["name"] for check in done] == ["good"]
        raise ZeroDivisionError("x | y")

    def refused(setting: Setting) -> dict[str, object]:
        raise Failed("off by 2")

    def missing(setting: Setting) -> dict[str, object]:
        raise Skipped("no flash")

    checks = [Check("good", lambda setting: {"ratio": 1.23456, "quartiles": [1.0, 2.0]}), Check("broken", broken)]
    checks += [Check("refused", refused), Check("missing", missing), Check("slow", lambda setting: {"reached": False})]
    outcomes = _checks.run_all(checks, Setting("cpu", tmp_path, {}), tmp_path / "out.md")
    assert [outcome.result for outcome in outcomes] == ["ok", "FAILED", "FAILED", "skipped", "missed"]
    table = (tmp_path / "out.md").read_text()
    assert capsys.readouterr().out.strip() == table.strip()
    assert "| good | ok | ratio: 1.235; quartiles: 1–2 |" in table and "reason: ZeroDivisionError: x / y" in table
    assert "- ok: 1, missed: 1, FAILED: 2, skipped: 1" in table and "- commit: " in table


def test_wrong_answers_are_seen(tmp_path, monkeypatch):
    """Catches tolerances so wide that any model passes: here two specialists are exchanged, or one is another."""
    setting = Setting("cpu", tmp_path, on_gpu.SCALES["tiny"])
    loaded = _gpu_answers._loaded
    for dtype in (torch.float32, torch.bfloat16):
        for order in ([0, 2, 1, 3], [0, 1, 2, 1]):  # of the fused model and its specialists
            with monkeypatch.context() as patch:
                patch.setattr(_gpu_answers, "_loaded", lambda *key, order=order: [loaded(*key)[i] for i in order])
                with pytest.raises(Failed, match="of their spread"):
                    _gpu_answers.logits(setting, dtype, "sdpa")
                with pytest.raises(Failed, match="below the reference's best"):
                    _gpu_answers.generate(setting, dtype, "sdpa")
