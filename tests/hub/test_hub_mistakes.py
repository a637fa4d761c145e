"""What goes wrong with models of the hub: each one line that says what to do, exit code 2, nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hub_world import files_of, mistake, without_weights

from fake_hub import FakeHub, Trouble

LORA = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"], "base_model_name_or_path": "org/text"}
NOBODY = {"HF_TOKEN": ""}
SOMEBODY = {"HF_TOKEN": "hf_of_somebody_else"}


@pytest.fixture
def shelf(hub: FakeHub, trio: dict[str, Path]) -> FakeHub:
    """A hub with a good specialist and bad ones."""
    good, bare = files_of(trio["text"]), without_weights(trio["text"])
    hub.push("org/text", good)
    hub.push("org/private", good, private=True)
    hub.push("org/gated", good, gated=True)
    hub.push("org/pickled", bare | {"pytorch_model.bin": b"pickled"})
    hub.push("org/gguf", bare | {"model.gguf": b"another format"})
    hub.push("org/dataset", {"train.jsonl": b"{}\n"}, kind="dataset")
    hub.push("org/pickled-lora", {"adapter_config.json": json.dumps(LORA).encode(), "adapter_model.bin": b"pickled"})
    lost = json.dumps(LORA | {"base_model_name_or_path": "org/none"}).encode()
    hub.push("org/lost-lora", {"adapter_config.json": lost, "adapter_model.safetensors": b""})
    return hub


@pytest.mark.parametrize(
    ("given", "environment", "told"),
    [
        ("org/none", NOBODY, "there is no such repository, or it is private: log in with 'hf auth login'"),
        ("org/none", SOMEBODY, "there is no such repository, or your account may not see it"),
        ("org/private", NOBODY, "there is no such repository, or it is private: log in with 'hf auth login'"),
        ("org/dataset", NOBODY, "there is no such repository, or it is private: log in with 'hf auth login'"),
        ("org/gated", NOBODY, "it is gated: ask for access on its page there, then log in with 'hf auth login'"),
        ("org/gated", SOMEBODY, "it is gated: ask for access on its page there"),
        ("org/text@v9", NOBODY, "it has no such branch, tag or commit"),
        ("org/lost-lora", NOBODY, "there is no such repository, or it is private: log in with 'hf auth login'"),
    ],
)
def test_not_to_be_had(shelf: FakeHub, given: str, environment: dict[str, str], told: str, tmp_path: Path) -> None:
    """Catches '401 Client Error.' as all that is said, and advice to log in for who is logged in."""
    command = ("fuse", "org/text", given, "--names", "a,b", "--out", tmp_path / "fused")
    line = mistake(*command, environment=environment)
    missing = "org/none" if given == "org/lost-lora" else given
    assert line.endswith(f"{missing}: no such directory, and not to be had from the Hugging Face hub ({told})")
    assert not list(tmp_path.glob("*fused*"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("org/pickled", "org/pickled: its weights are pickled (pytorch_model.bin), which can run code when loaded; convert them"),
        ("org/pickled-lora", "org/pickled-lora: its weights are pickled (adapter_model.bin), which can run code when loaded"),
        ("org/gguf", "no weights: neither model.safetensors nor model.safetensors.index.json is there"),
    ],
)
def test_without_weights_that_can_be_read(shelf: FakeHub, given: str, told: str, tmp_path: Path) -> None:
    """Catches a pickle that is fetched, and one that is told of as if nothing were there."""
    assert told in mistake("fuse", "org/text", given, "--out", tmp_path / "fused")
    assert not list(tmp_path.glob("*fused*"))
    assert not [path for path in shelf.downloaded(given) if path.endswith((".bin", ".gguf"))]


def test_hub_out_of_reach(shelf: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a traceback or a minute of trying again where there is no network, or where the hub is down."""
    command = ("fuse", "org/text", "org/gated", "--out", tmp_path / "fused")
    shelf.troubles.append(Trouble("*", status=503))
    assert "org/text: no such directory, and not to be had" in (line := mistake(*command)) and "the hub answers 503" in line
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # the port where nobody listens
    assert "(the hub cannot be reached)" in mistake(*command)
