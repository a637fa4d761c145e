"""Answers on disk: which are the same, what survives a kill, and what tells models apart."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys

import pytest
import torch
from evaluation_world import QUESTIONS
from lm_eval.models.huggingface import HFLM
from safetensors.torch import load_file, save_file

from ultrafuser.errors import UserError
from ultrafuser.evaluate.kept import AT_ONCE, KeptAnswers, request_key
from ultrafuser.evaluate.lm import UltraFuserLM
from ultrafuser.model.digest import model_digest

KILLED_AFTER = 3
CHILD = """
import os, signal, sys
from pathlib import Path
from ultrafuser.evaluate.kept import KeptAnswers
from ultrafuser.evaluate.lm import UltraFuserLM

class Killed(KeptAnswers):
    count = 0
    def keep(self, key, answer):
        super().keep(key, answer)
        self.count += 1
        if self.count == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)

lm = UltraFuserLM(sys.argv[1], device="cpu", batch_size=1, kept=Killed(Path(sys.argv[2])), identity="code")
lm.answer([[{"role": "user", "content": question}] for question in sys.argv[4:]], 12)
"""


def test_killed_at_any_answer(trio, tmp_path, monkeypatch):
    """SIGKILL right after an answer: it must be on disk, and going on must ask for the others only and end with the same."""
    command = [sys.executable, "-c", CHILD, trio["code"], tmp_path / "kept", str(KILLED_AFTER), *QUESTIONS]
    assert subprocess.run(command, capture_output=True).returncode == -signal.SIGKILL
    chats = [[{"role": "user", "content": question}] for question in QUESTIONS]
    expected = UltraFuserLM(str(trio["code"]), device="cpu", batch_size=1).answer(chats, 12)
    asked, generate = [], HFLM._model_generate
    monkeypatch.setattr(HFLM, "_model_generate", lambda self, context, **rest: asked.append(1) or generate(self, context, **rest))
    lm = UltraFuserLM(str(trio["code"]), device="cpu", batch_size=1, kept=KeptAnswers(tmp_path / "kept"), identity="code")
    assert lm.answer(chats, 12) == expected
    assert len(asked) == len(set(QUESTIONS)) - KILLED_AFTER


def test_keys_tell_requests_apart():
    """Every part of a request decides; the order of the settings does not."""
    base = ("m", "generate_until", ("prompt", {"max_gen_toks": 5, "until": ["x"]}))
    others = [
        ("n", *base[1:]),
        ("m", "loglikelihood", base[2]),
        ("m", "generate_until", ("prompt ", base[2][1])),
        ("m", "generate_until", ("prompt", {"max_gen_toks": 6, "until": ["x"]})),
        ("m", "generate_until", ("prompt", {"max_gen_toks": 5, "until": []})),
    ]
    assert len({request_key(*one) for one in [base, *others]}) == 6
    assert request_key("m", "generate_until", ["prompt", {"until": ["x"], "max_gen_toks": 5}]) == request_key(*base)


def test_store(tmp_path):
    """More keys than one statement takes, values of every kind, and another process's view of them."""
    kept = KeptAnswers(tmp_path / "kept")
    values = {f"k{i}": [-float(i), True] for i in range(2 * AT_ONCE + 1)} | {"text": "é\n\ud800", "empty": ""}
    for key, value in values.items():
        kept.keep(key, value)
    assert KeptAnswers(tmp_path / "kept").find([*values, "unknown"]) == values


def test_file_that_is_no_store(tmp_path):
    """A mistake told in one line, and the file stays as it is."""
    (tmp_path / "kept").write_text("something else, longer than the header of a database" * 20)
    with pytest.raises(UserError, match="cannot be kept there"):
        KeptAnswers(tmp_path / "kept")
    assert (tmp_path / "kept").read_text().startswith("something else")


def test_digest(trio, tmp_path):
    """Another weight in the middle of any tensor, or another template, is another model; a copy with another README is not."""
    copy = shutil.copytree(trio["text"], tmp_path / "copy")
    (copy / "README.md").write_text("changed")
    known = {model_digest(trio["text"])}
    assert model_digest(copy) in known
    weights = load_file(copy / "model.safetensors")
    for name, tensor in weights.items():
        changed = torch.nn.init.normal_(tensor.clone()) if tensor.ndim > 1 else tensor + 1
        save_file(weights | {name: changed}, copy / "model.safetensors", metadata={"format": "pt"})
        known.add(model_digest(copy))
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    (copy / "chat_template.jinja").write_text("{{ messages[0].content }}")
    known.add(model_digest(copy))
    assert len(known) == len(weights) + 2
