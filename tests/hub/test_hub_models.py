"""Specialists and fused models by hub id, over HTTP: what is fetched, from which commit, again after a break, and offline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_world import BESIDE, SMALL, files_of, mistake, ultrafuser, weights_of
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from fake_hub import TOKEN, FakeHub, Trouble
from tiny import tiny_specialist
from ultrafuser.model.fuse import fuse
from ultrafuser.model.sources import default_names, locate
from ultrafuser.synth.statistics import tokens_of


def test_fuses_what_the_hub_has_at_a_revision(hub: FakeHub, trio: dict[str, Path], fused: Path, tmp_path: Path) -> None:
    """Catches weights of another revision or order, files fetched twice or in vain, and a card that does not say which commit."""
    commits = {name: hub.push(f"org/{name}", files_of(folder) | BESIDE, tag="v1") for name, folder in trio.items()}
    hub.push("org/code", tiny_specialist(tmp_path / "newer", seed=9, **SMALL))
    ids = ["org/text", "org/code@v1", f"org/math@{commits['math']}"]
    done = ultrafuser("fuse", *ids, "--out", tmp_path / "fused", "--names", "text,code,math")
    assert done.exit_code == 0 and done.stderr == "", done.output
    assert default_names(ids) == ["text", "code", "math"]
    assert weights_of(tmp_path / "fused") == weights_of(fused)
    card = (tmp_path / "fused" / "README.md").read_text(encoding="utf-8")
    for name, folder in trio.items():
        assert sorted(hub.downloaded(f"org/{name}")) == sorted(files_of(folder))
        assert f"| {name} | `org/{name} at {commits[name]}` |" in card
    assert "base_model:\n- org/text\n- org/code\n- org/math\n" in card


def test_an_at_sign_in_a_directory_is_no_revision(tmp_path: Path) -> None:
    """Catches specialists called after half of a directory above them."""
    folder = tmp_path / "runs@2" / "code"
    folder.mkdir(parents=True)
    assert default_names([folder, "org/math@v2"]) == ["code", "math"]


def test_adapter_and_its_base(hub: FakeHub, trio: dict[str, Path], tmp_path: Path) -> None:
    """Catches a base of another revision than the adapter was trained on, and a card that names a commit for a base."""
    local = tmp_path / "adapter"
    options = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(AutoModelForCausalLM.from_pretrained(trio["code"]), options).save_pretrained(local)
    expected = weights_of(fuse([trio["text"], local], tmp_path / "expected"))
    base = hub.push("org/base", files_of(trio["code"]) | BESIDE, tag="v1")
    hub.push("org/base", tiny_specialist(tmp_path / "newer", seed=9, **SMALL))
    config = json.loads((local / "adapter_config.json").read_text())
    there = {"adapter_config.json": json.dumps(config | {"base_model_name_or_path": "org/base", "revision": "v1"}).encode()}
    adapter = hub.push("org/adapter", files_of(local) | BESIDE | there)
    assert weights_of(fuse([trio["text"], "org/adapter"], tmp_path / "fused")) == expected
    assert f"`org/adapter at {adapter}` (adapter on `org/base at {base}`)" in (tmp_path / "fused/README.md").read_text()
    assert sorted(hub.downloaded("org/adapter")) == ["adapter_config.json", "adapter_model.safetensors"]


def test_check_and_count_tokens_by_hub_id(hub: FakeHub, trio: dict[str, Path]) -> None:
    """Catches commands other than `fuse` that take no hub id, or no revision."""
    for name, folder in trio.items():
        hub.push(f"org/{name}", folder, tag="v1")
    checked = ultrafuser("check", "org/text@v1", "org/math", "--names", "text,math")
    assert checked.exit_code == 0 and "logit scale" in checked.stdout, checked.output
    assert tokens_of("org/text@v1").count("the lazy dog") == tokens_of(str(trio["text"])).count("the lazy dog")


def test_plan_counts_the_given_revision(hub: FakeHub, trio: dict[str, Path], tmp_path: Path) -> None:
    """Catches a dry run that plans for the newest revision of a specialist, or fetches weights."""
    for name, folder in trio.items():
        hub.push(f"org/{name}", folder, tag="v1")
    hub.push("org/text", tiny_specialist(tmp_path / "larger", **(SMALL | {"num_hidden_layers": 4})))
    places = ",".join(f"{{name: {name}, path: org/{name}@v1}}" for name in trio)
    recipe = tmp_path / "recipe.yaml"
    data = "{train: [org/chats], domains: [text]}"
    recipe.write_text(f"name: a\noutput: {tmp_path}/run\nspecialists: [{places}]\ndata: {data}\n")
    planned = ultrafuser("run", recipe, "--dry-run")
    assert planned.exit_code == 0, planned.output
    counts = [line.rpartition(", ")[2] for line in planned.stdout.splitlines() if "specialist" in line and "@v1" in line]
    assert len(counts) == 3 and len(set(counts)) == 1, planned.stdout
    assert {path for name in trio for path in hub.downloaded(f"org/{name}")} == {"config.json"}


def test_broken_connection_goes_on_where_it_broke(
    hub: FakeHub, trio: dict[str, Path], no_waiting: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a download that begins anew, and a file with a hole or a piece twice."""
    hub.push("org/text", trio["text"])
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)  # what has arrived is counted in these
    hub.troubles.append(Trouble("/content/*/model.safetensors", cut=5000, times=1))
    assert files_of(locate("org/text")) == files_of(trio["text"])
    ranges = [seen.range for seen in hub.log if seen.path.endswith("/model.safetensors") and seen.method == "GET"]
    assert ranges == [None, "bytes=5000-"]
    assert no_waiting == [1]


def test_interrupted_download_is_taken_up_again(hub: FakeHub, trio: dict[str, Path], tmp_path: Path) -> None:
    """Catches an output made of half a model, and files fetched again that are there already."""
    hub.push("org/text", trio["text"])
    hub.push("org/code", trio["code"])
    hub.troubles.append(Trouble("/content/org/code/*/model-00002-*", status=500, times=1))
    command = ("fuse", "org/text", "org/code", "--out", tmp_path / "fused")
    assert "org/code: no such directory, and not to be had" in (line := mistake(*command)) and "the hub answers 500" in line
    assert not list(tmp_path.glob("*fused*"))
    assert ultrafuser(*command).exit_code == 0
    assert sorted(hub.downloaded("org/code")) == sorted(files_of(trio["code"]))
    assert sorted(hub.downloaded("org/text")) == sorted(files_of(trio["text"]))


def test_second_run_needs_no_network(hub: FakeHub, trio: dict[str, Path], offline, tmp_path: Path) -> None:
    """Catches a cache that is not used: when told to stay offline, and when the hub is gone."""
    for name in ("text", "math"):
        hub.push(f"org/{name}", files_of(trio[name]) | BESIDE, tag="v1")
    first = weights_of(fuse(["org/text", "org/math@v1"], tmp_path / "first"))
    before = len(hub.log)
    with offline():
        assert weights_of(fuse(["org/text", "org/math@v1"], tmp_path / "second")) == first
        line = mistake("fuse", "org/text", "org/code", "--out", tmp_path / "none")
        assert "org/code: " in line and "(it is not in the cache, and HF_HUB_OFFLINE is set)" in line
    assert len(hub.log) == before
    hub.troubles.append(Trouble("*", status=503))
    assert weights_of(fuse(["org/text", "org/math@v1"], tmp_path / "third")) == first


def test_gated_and_private_for_who_has_access(
    hub: FakeHub, trio: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a token that does not reach the hub, and one that is sent on to the content server or written anywhere."""
    hub.push("org/text", trio["text"], gated=True)
    hub.push("org/math", trio["math"], private=True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    fused = fuse(["org/text", "org/math"], tmp_path / "fused")
    assert {seen.token for seen in hub.log if seen.path.startswith("/content/")} == {None}
    assert not [path for path, content in files_of(fused).items() if TOKEN.encode() in content]


@pytest.mark.slow
def test_in_processes_of_their_own(hub: FakeHub, trio: dict[str, Path], fused: Path, tmp_path: Path) -> None:
    """Catches a test set-up that works otherwise than HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE do for a user."""
    for name, folder in trio.items():
        hub.push(f"org/{name}", files_of(folder) | BESIDE)
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "ultrafuser.cli", "fuse", "org/text", "org/code", "org/math", "--out"]
    subprocess.run([*command, tmp_path / "one"], env=environment, check=True, capture_output=True)
    before = len(hub.log)
    subprocess.run([*command, tmp_path / "two"], env=environment | {"HF_HUB_OFFLINE": "1"}, check=True, capture_output=True)
    assert weights_of(tmp_path / "one") == weights_of(tmp_path / "two") == weights_of(fused)
    assert len(hub.log) == before > 0
