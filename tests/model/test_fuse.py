"""Fusing: every tensor of the fused checkpoint against one assembled by hand, and everything written beside the weights."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tiny import TEMPLATES, tiny_specialist, tiny_tokenizer
from ultrafuser.errors import UserError
from ultrafuser.model import fuse as fuse_module
from ultrafuser.model import safetensors_stream, tensors
from ultrafuser.model.fuse import FuseOptions, fuse
from ultrafuser.model.lineup import line_up
from ultrafuser.model.sources import open_specialists
from ultrafuser.tokens.templates import load_template

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def load(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint, by the safetensors library: independent of our reader and of the index."""
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def naive_fusion(folders: list[Path], fused: Path) -> dict[str, torch.Tensor]:
    """The fused tensors assembled in memory from whole tensors, without the gate."""
    specialists = open_specialists(folders)
    plan = line_up(specialists, [None] * len(folders)).plan
    expected, embeddings, heads, layer = {}, [], [], 0
    for j, one in enumerate(specialists):
        own = load(one.folder)
        table = own.pop(EMBEDDING)
        head = own.pop(HEAD, table)
        for into, source, slot_ids in (
            (embeddings, table, [row[j] for row in plan.slot_sources]),
            (heads, head, [plan.end_sources[j] if "end" in token else None for token in plan.slot_tokens]),
        ):
            shared = torch.zeros(plan.slot_start, source.shape[1])
            count = min(plan.slot_start, len(source))
            shared[:count] = source[:count]
            slots = [source[i] if i is not None else torch.zeros(source.shape[1]) for i in slot_ids]
            into.append(torch.cat([shared, *(slot[None] for slot in slots)]))
        for name, tensor in own.items():
            parts = name.split(".")
            if parts[1] == "layers":
                parts[2] = str(int(parts[2]) + layer)
                expected[".".join(parts)] = tensor
            else:
                expected[f"model.norms.{j}.weight"] = tensor
        layer += one.config.num_hidden_layers
    expected[EMBEDDING] = torch.cat(embeddings, dim=1)
    if not all(one.tied for one in specialists):
        expected[HEAD] = torch.cat(heads, dim=1)
    return expected


@pytest.fixture(scope="module")
def unlike(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three specialists that differ in all they may: architecture, template, tie, rows, depth, width, shards."""
    root = tmp_path_factory.mktemp("unlike")
    return [
        tiny_specialist(root / "text", "llama", 0, template="user"),
        tiny_specialist(root / "code", "qwen3", 1, template="chatml", tie=True, vocab_size=352, max_shard_size="40KB"),
        tiny_specialist(root / "math", "mistral", 2, template="inst", num_hidden_layers=3, hidden_size=48),
    ]


@pytest.fixture(scope="module")
def fused(unlike: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fuse(unlike, tmp_path_factory.mktemp("fused") / "fused", options=FuseOptions(gate_hidden_size=8))


def test_every_tensor_is_where_it_belongs(unlike: list[Path], fused: Path) -> None:
    """Catches a row, column, layer or slot that lands in the wrong place, and a head not taken from a tied embedding."""
    expected = naive_fusion(unlike, fused)
    actual = load(fused)
    gate = {name for name in actual if name.startswith("model.gate.")}
    assert actual.keys() - gate == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(actual[name], tensor), name


def test_loads_with_nothing_missing_or_left_over(fused: Path) -> None:
    """Catches a name or shape that the model class does not have, which would be initialised at random without a word."""
    _, info = AutoModelForCausalLM.from_pretrained(fused, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))


def test_common_template_gives_the_mean_of_the_logits(tmp_path: Path) -> None:
    """Catches wrong columns of tables: a gate that weighs all alike must give the mean of the separate models' logits."""
    folders = [tiny_specialist(tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
    model = AutoModelForCausalLM.from_pretrained(fuse(folders, tmp_path / "fused")).eval()
    torch.nn.init.zeros_(model.model.gate.linear_out.weight)
    ids = torch.tensor([[10, 30, 77, 5, 200]])
    with torch.no_grad():
        separate = [AutoModelForCausalLM.from_pretrained(folder).eval()(ids).logits for folder in folders]
        assert torch.allclose(model(ids).logits, sum(separate) / 2, atol=1e-5)


def test_all_tied_have_one_table(tmp_path: Path) -> None:
    """Catches a second copy of the largest tensor, and a fused model that does not know that it is tied."""
    folders = [tiny_specialist(tmp_path / name, "qwen2", seed, tie=True) for seed, name in enumerate("ab")]
    fused = fuse(folders, tmp_path / "fused")
    assert HEAD not in load(fused)
    model = AutoModelForCausalLM.from_pretrained(fused)
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_shards_and_index(unlike: list[Path], fused: Path, tmp_path: Path) -> None:
    """Catches a wrong index or total, a shard over the limit, tensors that shards change, and a gate not in its own file."""
    small = fuse(unlike, tmp_path / "small", options=FuseOptions(gate_hidden_size=8, max_shard_size="60KB"))
    index = json.loads((small / "model.safetensors.index.json").read_text())
    one, many = load(fused), load(small)
    assert one.keys() == many.keys() == index["weight_map"].keys()
    assert all(torch.equal(one[name], many[name]) for name in one)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in many.values())
    shards = sorted(small.glob("model-*.safetensors"))
    assert len(shards) > 3 and shards[0].name == f"model-00001-of-{len(shards):05d}.safetensors"
    for shard in shards:
        with safe_open(shard, "pt") as file:
            names = list(file.keys())
        assert all(index["weight_map"][name] == shard.name for name in names)
        assert len(names) == 1 or sum(many[name].nbytes for name in names) <= 60_000
    assert {n for n, file in index["weight_map"].items() if file == "gate.safetensors"} == {n for n in one if ".gate." in n}


def test_never_reads_more_than_a_block(unlike: list[Path], fused: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches whole tensors in memory: with blocks of 2 kB no read may be larger, and the result is the same."""
    sizes = []
    rows = tensors.StoredTensor.rows

    def recorded(self: tensors.StoredTensor, start: int, stop: int) -> torch.Tensor:
        sizes.append((stop - start) * tensors.row_bytes(self))
        return rows(self, start, stop)

    monkeypatch.setattr(safetensors_stream, "BLOCK_BYTES", 2048)
    monkeypatch.setattr(tensors.StoredTensor, "rows", recorded)
    again = fuse(unlike, tmp_path / "again", options=FuseOptions(gate_hidden_size=8))
    assert 0 < max(sizes) <= 2048
    file = "model-00001-of-00001.safetensors"
    assert (again / file).read_bytes() == (fused / file).read_bytes()


def test_unlike_dtypes_are_promoted_and_dtype_can_be_chosen(tmp_path: Path) -> None:
    """Catches a cast that loses bits, one that is forgotten, and a gate that is not float32."""
    folders = [
        tiny_specialist(tmp_path / "half", seed=0, dtype=torch.float16),
        tiny_specialist(tmp_path / "brain", seed=1, dtype=torch.bfloat16),
    ]
    promoted = load(fuse(folders, tmp_path / "promoted"))
    assert {tensor.dtype for tensor in promoted.values()} == {torch.float32}
    assert torch.equal(promoted["model.norms.1.weight"], load(folders[1])["model.norm.weight"].float())
    chosen = load(fuse(folders, tmp_path / "chosen", options=FuseOptions(dtype="bfloat16")))
    assert {t.dtype for name, t in chosen.items() if ".gate." not in name} == {torch.bfloat16}
    assert {t.dtype for name, t in chosen.items() if ".gate." in name} == {torch.float32}
    half = load(folders[0])["model.layers.0.mlp.up_proj.weight"]
    assert torch.equal(chosen["model.layers.0.mlp.up_proj.weight"], half.to(torch.bfloat16))


def test_gate_depends_on_the_seed_alone(unlike: list[Path], fused: Path, tmp_path: Path) -> None:
    """Catches a gate drawn from the process's random state, and a fuse that changes that state."""
    torch.manual_seed(123)
    before = torch.get_rng_state()
    again = fuse(unlike, tmp_path / "again", options=FuseOptions(gate_hidden_size=8))
    assert torch.equal(torch.get_rng_state(), before)
    other = fuse(unlike, tmp_path / "other", options=FuseOptions(gate_hidden_size=8, seed=1))
    gate = "gate.safetensors"
    assert (again / gate).read_bytes() == (fused / gate).read_bytes() != (other / gate).read_bytes()


def test_files_beside_the_weights(fused: Path) -> None:
    """Catches a checkpoint that does not load without the package, loses its templates, or tells private paths."""
    config = json.loads((fused / "config.json").read_text())
    assert set(config["auto_map"]) == {"AutoConfig", "AutoModel", "AutoModelForCausalLM"}
    assert all((fused / f"{value.split('.')[0]}.py").is_file() for value in config["auto_map"].values())
    card = (fused / "README.md").read_text()
    assert all(word in card for word in ("text", "code", "math", "chat templates", "sha256", "trust_remote_code"))
    assert str(fused.parent.parent) not in card + json.dumps(config)
    tokenizer = AutoTokenizer.from_pretrained(fused)
    assert tokenizer.padding_side == "left"  # as batched generation needs it
    assert config["pad_token_id"] == tokenizer.pad_token_id
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], add_generation_prompt=True)["input_ids"]
    assert max(ids) < config["vocab_size"] and min(ids[:2]) >= config["slot_start"]


def test_generation_settings_are_kept_only_where_all_agree(tmp_path: Path) -> None:
    """Catches one specialist's sampling or length limit forced on all, and end tokens that are lost."""
    folders = [
        tiny_specialist(tmp_path / "a", seed=0),
        tiny_specialist(tmp_path / "b", seed=1, tokenizer=tiny_tokenizer("chatml"), template="chatml"),
    ]
    own = [
        {"max_length": 99, "repetition_penalty": 1.1, "temperature": 0.5, "do_sample": True},
        {"max_length": 50, "repetition_penalty": 1.1, "temperature": 0.5},
    ]
    for folder, settings in zip(folders, own, strict=True):
        (folder / "generation_config.json").write_text(json.dumps(settings))
    fused = fuse(folders, tmp_path / "fused")
    written = json.loads((fused / "generation_config.json").read_text())
    config = json.loads((fused / "config.json").read_text())
    assert set(written) == {"repetition_penalty", "eos_token_id", "pad_token_id", "bos_token_id"}
    assert written["eos_token_id"] == [config["slot_start"], 2, 4]


def test_one_template_for_all_needs_no_slots(unlike: list[Path], tmp_path: Path) -> None:
    """Catches slots that are planned although all use one template, and a fused template that is not the one given."""
    template = tmp_path / "common.jinja"
    template.write_text(tiny_tokenizer("user").chat_template.replace("eos_token", "'</s>'"))
    fused = fuse(unlike, tmp_path / "fused", options=FuseOptions(templates=[str(template)]))
    config = json.loads((fused / "config.json").read_text())
    assert config["slot_visibility"] == [] and config["vocab_size"] == config["slot_start"]
    tokenizer = AutoTokenizer.from_pretrained(fused)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False, add_generation_prompt=True)
    assert text == "User: hi\nAssistant:"


def test_own_among_templates_given(unlike: list[Path], tmp_path: Path) -> None:
    """Catches `own` taken for a file, and templates given to the wrong specialist."""
    fused = fuse(unlike, tmp_path / "fused", options=FuseOptions(templates=["own", "plain", "own"]))
    own = {name: (fused / "specialists" / name / "chat_template.jinja").read_text() for name in ("text", "code", "math")}
    assert own == {"text": TEMPLATES["user"], "code": load_template("plain"), "math": TEMPLATES["inst"]}


def test_existing_output_is_kept_without_overwrite(unlike: list[Path], tmp_path: Path) -> None:
    """Catches a user's directory that is overwritten without being asked to, or not when asked to."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="--overwrite"):
        fuse(unlike, out)
    assert (out / "mine.txt").read_text() == "mine"
    fuse(unlike, out, options=FuseOptions(overwrite=True))
    assert not (out / "mine.txt").exists() and (out / "config.json").exists()


def test_full_disk_leaves_nothing(unlike: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a half-written directory after the disk has filled up in the middle, and a traceback for it."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)  # where a disk that gives room late says so
    with pytest.raises(UserError, match="full"):
        fuse(unlike, tmp_path / "out" / "fused")
    assert list((tmp_path / "out").iterdir()) == []


def test_space_is_checked_before_writing(unlike: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a need that is guessed: it must cover what is written, and stop `fuse` before it writes."""
    needed = []
    monkeypatch.setattr(fuse_module, "require_space", lambda path, count: needed.append(count))
    out = fuse(unlike, tmp_path / "fused")
    written = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    assert written <= needed[0] <= written + (2 << 20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "bflot16"}, "^dtype='bflot16': must be .*; did you mean 'bfloat16'"),
        ({"gate_hidden_size": 0}, "^gate_hidden_size=0: must be at least 1$"),
        ({"gate_hidden_size": 10**9}, "needs"),
        ({"gate_hidden_size": 10**30}, "must be at most"),
        ({"max_shard_size": "9" * 400 + "TB"}, "is not a size such as"),
        ({"max_shard_size": "huge"}, "^max_shard_size: 'huge' is not a size such as 5GB"),
        ({"max_shard_size": None}, "^max_shard_size: None is not a size"),
        ({"templates": ["chatml", "plain"]}, "2 chat templates for 3 specialists"),
        ({"templates": ["chatmel"]}, "did you mean 'chatml'"),
        ({"templates": "chatml"}, "^templates='chatml': must be a list$"),
        ({"templates": 3}, "^templates=3: must be a list$"),
        ({"seed": -1}, "^seed=-1: must be at least 0$"),
        ({"overwrite": 3}, "^overwrite=3: must be true or false$"),
        ({"sed": 1}, "^sed: unknown key; did you mean 'seed'"),
    ],
)
def test_impossible_options(unlike: list[Path], tmp_path: Path, options: dict[str, object], message: str) -> None:
    """Catches an option that is silently ignored or ends in a traceback."""
    with pytest.raises(UserError, match=message):
        fuse(unlike, tmp_path / "out", options=FuseOptions(**options))
    assert list(tmp_path.iterdir()) == []


def test_card_tells_weights_apart(tmp_path: Path) -> None:
    """Catches hashes that are the same for models of one shape, whose headers are."""
    folders = [tiny_specialist(tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
    card = (fuse(folders, tmp_path / "fused") / "README.md").read_text()
    hashes = [line.split("`")[1] for line in card.splitlines() if "model.safetensors (sampled)" in line]
    assert len(hashes) == 2 == len(set(hashes))
