"""Training data and benchmarks of the hub in the commands that take them, over HTTP."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
from benchmark_repositories import repositories
from hub_world import conversations, files_of, json_lines, mistake, said, ultrafuser, weights_of

from benchmark_rows import RECORDS
from fake_hub import FakeHub, Trouble
from ultrafuser.data.conversations import read_conversations
from ultrafuser.errors import UserError

STEPS = ("--steps", "1,0", "--per-domain", "1", "--max-length", "64", "--micro-batch-size", "1")


def test_trains_on_the_hub_as_on_a_file(hub: FakeHub, fused: Path, offline, tmp_path: Path) -> None:
    """Catches rows of another split or order, and a hub data set that cannot be had again without a network."""
    local = tmp_path / "chats.jsonl"
    local.write_bytes(json_lines(conversations()))
    other = json_lines(conversations(1))
    hub.push("org/chats", {"train.jsonl": other, "test.jsonl": local.read_bytes()}, kind="dataset")
    expected = [(one.domain, one.messages) for one in read_conversations(local)]
    assert [(one.domain, one.messages) for one in read_conversations("org/chats:test")] == expected
    assert read_conversations("org/chats:test[:3]")[1].where == "org/chats (test[:3]) row 2"
    before = len(hub.log)
    with offline():
        done = ultrafuser("train", fused, "--data", "org/chats:test", "--out", tmp_path / "out", *STEPS)
    assert done.exit_code == 0 and len(hub.log) == before, done.output
    assert f"{len(expected)} examples" in done.output
    assert weights_of(tmp_path / "out")["gate.safetensors"] != weights_of(fused)["gate.safetensors"]


def test_revisions(hub: FakeHub, offline, tmp_path: Path) -> None:
    """Catches a revision that is ignored, and the newest in the cache in its place where there is no network."""
    first, second, third = ([said("user", "Hm?"), said("assistant", text)] for text in ("First.", "Second.", "Third."))
    old = hub.push("org/chats", {"test.jsonl": json_lines([{"domain": "text", "messages": first}])}, kind="dataset", tag="v1")
    for tag, messages in (("v2", second), ("v3", third)):
        hub.push("org/chats", {"test.jsonl": json_lines([{"domain": "text", "messages": messages}])}, kind="dataset", tag=tag)

    def messages(source: str) -> list[dict[str, str]]:
        (one,) = read_conversations(source)
        return one.messages

    expected = {"org/chats:test": third, "org/chats@v1:test": first, f"org/chats@{old}:test": first, "org/chats@v2:test": second}
    assert {source: messages(source) for source in expected} == expected
    with offline():
        assert messages("org/chats@v2:test") == second
        for source in ("org/chats:test", "org/chats@v1:test"):
            with pytest.raises(UserError, match="the cache gives another revision of it, and the hub cannot be reached"):
                messages(source)
        with pytest.raises(UserError, match=r"@v3: cannot be loaded .* \(it is not in the cache, and HF_HUB_OFFLINE is set\)"):
            messages("org/chats@v3:test")
    out = tmp_path / "clean.jsonl"
    hub.push("openai/gsm8k", repositories()["openai/gsm8k"], kind="dataset")
    done = ultrafuser("decontaminate", "org/chats@v1:test", "--against", "gsm8k", "--out", out)
    assert done.exit_code == 0 and json.loads(out.read_text(encoding="utf-8"))["messages"] == first, done.output


@pytest.mark.parametrize("held", ["nothing any more", "one file that was fetched by hand"])
def test_whatever_the_clients_cache_holds(held: str, hub: FakeHub) -> None:
    """Catches a hub that is said not to be reached since the client's cache was emptied or holds a part of the repository."""
    row = {"domain": "text", "messages": [said("user", "Hm?"), said("assistant", "Yes.")]}
    hub.push("org/chats", {"train.jsonl": json_lines([row]), "notes.txt": b"for readers"}, kind="dataset")
    if held == "nothing any more":
        read_conversations("org/chats")
        shutil.rmtree(huggingface_hub.constants.HF_HUB_CACHE)
    else:
        huggingface_hub.snapshot_download("org/chats", repo_type="dataset", allow_patterns=["train.jsonl"])
    (one,) = read_conversations("org/chats")
    assert one.messages == row["messages"]


def test_bad_training_data_are_one_line(hub: FakeHub, fused: Path, tmp_path: Path, no_waiting: list[float]) -> None:
    """Catches a traceback, a useless message, or an output that is begun before the data are there."""
    rows = conversations()
    hub.push("org/chats", {"train.jsonl": json_lines(rows)}, kind="dataset", tag="v1")
    hub.push("org/gated", {"train.jsonl": json_lines(rows)}, kind="dataset", gated=True)
    hub.push("org/script", {"script.py": b"import datasets\n"}, kind="dataset")
    hub.push("org/plain", {"train.jsonl": json_lines([{"domain": "text", "text": "once"}])}, kind="dataset")
    bad = {
        "org/none": "split 'train' (there is no such repository, or it is private: log in with 'hf auth login')",
        "org/gated": "(it is gated: ask for access on its page there, then log in with 'hf auth login')",
        "org/chats:tset": """split 'tset' (Unknown split "tset". Should be one of ['train'].)""",
        "org/chats@v9": "org/chats@v9: cannot be loaded as a dataset with split 'train' (it has no such branch, tag or commit)",
        "org/chats@:train": "org/chats@: cannot be loaded as a dataset with split 'train' (no revision stands after '@')",
        "org/script": "Dataset scripts are no longer supported, but found script.py",
        "org/plain": "org/plain (train) row 1: has no 'messages' (keys: domain, text)",
    }
    for source, told in bad.items():
        assert told in mistake("train", fused, "--data", source, "--out", tmp_path / "out", *STEPS)
    hub.troubles.append(Trouble("*", status=503))
    assert "(the hub cannot be reached)" in mistake("train", fused, "--data", "org/gated", "--out", tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_decontaminates_the_hub_against_the_hub(hub: FakeHub, tmp_path: Path) -> None:
    """Catches a hub data set that only training takes, and test texts of the hub that are not looked for."""
    hub.push("openai/gsm8k", repositories()["openai/gsm8k"], kind="dataset")
    leaked = {"domain": "math", "messages": [said("user", RECORDS["gsm8k"][0]["prompt"]), said("assistant", "2,000")]}
    hub.push("org/chats", {"train.jsonl": json_lines([*conversations(1), leaked])}, kind="dataset")
    out = tmp_path / "clean.jsonl"
    done = ultrafuser("decontaminate", "org/chats", "--against", "gsm8k", "--out", out)
    assert done.exit_code == 0, done.output
    assert [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] == conversations(1)


def test_evaluates_a_model_of_the_hub_on_data_of_the_hub(
    hub: FakeHub, trio: dict[str, Path], fused: Path, tmp_path: Path
) -> None:
    """Catches a fused model whose specialists stay on the hub, test data other than asked for, and a lack that loses the rest."""
    pytest.importorskip("lm_eval")
    hub.push("org/fused", files_of(fused) | {"original/weights.pth": b"pickled", "pytorch_model.bin": b"pickled"})
    hub.push("openai/gsm8k", repositories()["openai/gsm8k"], kind="dataset")
    command = ("eval", "org/fused", "--with-specialists", "--tasks", "gsm8k,mbpp", "--out", tmp_path / "out")
    done = ultrafuser(*command, "--limit", "1", "--max-new-tokens", "2", "--device", "cpu")
    assert done.exit_code == 2, done.output
    assert "failed: mbpp: cannot be loaded from the hub (google-research-datasets/mbpp: there is no such" in done.stderr
    for name in (*trio, "fused"):
        (sample,) = (tmp_path / "out" / "samples" / name / "gsm8k.jsonl").read_text(encoding="utf-8").splitlines()
        assert json.loads(sample)["question"] == RECORDS["gsm8k"][0]["prompt"]
    card = "/datasets/openai/gsm8k/resolve/main/README.md"
    assert [(seen.method, seen.path) for seen in hub.log].count(("HEAD", card)) == 1  # not for each of the four models
    assert not [path for path in hub.downloaded("org/fused") if path.endswith((".pth", ".bin", ".py"))]
