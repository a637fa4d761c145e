"""What cannot be fused is refused in one line that names it, and nothing is written (the issue's list of bad input)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tiny import tiny_specialist, tiny_tokenizer
from ultrafuser.errors import UserError
from ultrafuser.model.fuse import FuseOptions, fuse
from ultrafuser.model.load import load
from ultrafuser.model.merge import average_merge
from ultrafuser.model.sources import open_specialist, open_specialists


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_specialist(tmp_path_factory.mktemp("good") / "good")


def edit_config(folder: Path, **values: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})


def truncate(folder: Path, keep: float) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * keep)])


def edit_header(tensor: str, folder: Path, **values: object) -> None:
    file = folder / "model.safetensors"
    content = file.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header[tensor] |= values
    written = json.dumps(header).encode()
    file.write_bytes(len(written).to_bytes(8, "little") + written + content[end:])


def pickle_only(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def shard_missing(folder: Path) -> None:
    shutil.rmtree(folder)
    tiny_specialist(folder, max_shard_size="40KB")
    next(folder.glob("model-00002*")).unlink()


def index_of(shard: object, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {NORM: shard}}))


def other_vocabulary(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def remove(*names: str) -> Callable[[Path], object]:
    return lambda folder: [(folder / name).unlink() for name in names]


def not_safetensors(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x04" + b"\0" * 7 + b"nope")


NORM, EMBEDDING, HEAD = "model.norm.weight", "model.embed_tokens.weight", "lm_head.weight"
GPT2 = "'gpt2' is not supported; supported are llama, mistral, qwen2, qwen3"
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (shutil.rmtree, "no such directory"),
    "a file": (lambda folder: (shutil.rmtree(folder), folder.write_text("")), "is a file"),
    "no config": (remove("config.json"), "no config.json"),
    "broken config": (lambda folder: (folder / "config.json").write_text("{"), "not valid JSON"),
    "values refused": (lambda folder: edit_config(folder, hidden_act=3), "config.json.*'hidden_act'.*3"),
    "a word": (lambda folder: edit_config(folder, num_hidden_layers="two"), "json: num_hidden_layers='two': must be"),
    "no context": (lambda folder: edit_config(folder, max_position_embeddings=0), "json: max_position_embeddings=0: must be at"),
    "no heads": (lambda folder: edit_config(folder, num_attention_heads=0), "json: num_attention_heads=0: must be at least 1"),
    "no width": (lambda folder: edit_config(folder, hidden_size=-1), "json: hidden_size=-1: must be at least 1"),
    "no epsilon": (lambda folder: edit_config(folder, rms_norm_eps=float("nan")), "json: rms_norm_eps=nan: must be"),
    "no rotation": (lambda folder: edit_config(folder, rope_parameters={"rope_theta": 0}), "rope_parameters.rope_theta=0: must"),
    "layer types": (lambda folder: edit_config(folder, layer_types=["full_attention"]), "layer_types.*1"),
    "architecture": (lambda folder: edit_config(folder, model_type="gpt2"), GPT2),
    "quantised": (lambda folder: edit_config(folder, quantization_config={"bits": 4}), "is quantised"),
    "int8": (lambda folder: edit_tensors(folder, lambda t: t.update({NORM: t[NORM].char()})), "quantised weights"),
    "truncated": (lambda folder: truncate(folder, 0.9), "model.safetensors: truncated: it should have"),
    "header truncated": (lambda folder: truncate(folder, 0.001), "truncated: not even its header"),
    "not safetensors": (not_safetensors, "not a safetensors file"),
    "pickled": (pickle_only, r"pickled \(pytorch_model.bin\).*convert"),
    "no weights": (remove("model.safetensors"), "no weights"),
    "shard missing": (shard_missing, "model-00002-of-.*no such file"),
    "tensor missing": (lambda folder: edit_tensors(folder, lambda t: t.pop(NORM)), f"1 tensor is missing: {NORM}"),
    "head missing": (lambda folder: edit_tensors(folder, lambda t: t.pop(HEAD)), f"bad: 1 tensor is missing: {HEAD}"),
    "tensor extra": (lambda folder: edit_tensors(folder, lambda t: t.update(x=torch.ones(2))), "not of this architecture: x"),
    "shape": (lambda folder: edit_tensors(folder, lambda t: t.update({NORM: torch.ones(7)})), rf"{NORM} has shape \[7\]"),
    "shape of nothing": (partial(edit_header, NORM, shape=[None]), f"safetensors: tensor {NORM} has a .* entry that is not"),
    "shape below 0": (partial(edit_header, EMBEDDING, shape=[-320, -32]), f"tensor {EMBEDDING} has a .* entry that is not known"),
    "half a byte": (partial(edit_header, EMBEDDING, data_offsets=[0.0, 40960.0]), f"{EMBEDDING} has a .* entry that is not"),
    "no such model": (lambda folder: edit_config(folder, hidden_act="nope"), "no model can be made .*KeyError: 'nope'"),
    "config of a list": (lambda folder: (folder / "config.json").write_text("[]"), "config.json: must hold keys"),
    "generation of a list": (lambda folder: (folder / "generation_config.json").write_text("[1]"), "must hold keys"),
    "shard elsewhere": (partial(index_of, "../good/model.safetensors"), "index.json: has no weight_map of files beside it"),
    "shard of no name": (partial(index_of, 5), "index.json: has no weight_map of files beside it"),
    "no tokenizer": (remove("tokenizer.json", "tokenizer_config.json"), "no tokenizer"),
    "broken tokenizer": (
        lambda folder: (folder / "tokenizer.json").write_text("{}"), r"tokenizer does not load \(.+\); copy the one it was"
    ),
    "half a tokenizer": (remove("tokenizer.json"), r"tokenizer does not load \(.+ (\.\.|\.)\); copy the one it was"),
    "no model_type": (partial(edit_config, model_type=None), "bad: a config.json without model_type is not supported"),
    "vocabulary": (other_vocabulary, "conflict"),
    "no template": (remove("chat_template.jinja"), "template"),
    "template drops content": (lambda folder: (folder / "chat_template.jinja").write_text("hello"), "template"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_refused_in_one_line_and_nothing_written(good: Path, tmp_path: Path, fault: str) -> None:
    """Catches a traceback, a message that does not say what is wrong, and a half-written output."""
    bad, (damage, message) = tmp_path / "bad", FAULTS[fault]
    shutil.copytree(good, bad)
    damage(bad)
    with pytest.raises(UserError, match=message) as caught:
        fuse([good, bad], tmp_path / "out")
    assert "\n" not in str(caught.value) and "bad" in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} <= {"bad"}


@pytest.mark.parametrize(
    ("count", "names", "message"),
    [
        (1, None, "1 specialist given; from two to eight"),
        (9, None, "9 specialists given; from two to eight"),
        (2, None, "not all different"),
        (2, ["a", "A"], "not all different"),
        (2, ["a", "../b"], "'../b' is not valid"),
        (2, ["a", "b" * 101], "up to 100 letters"),
        (2, ["a"], "1 name for 2 specialists"),
    ],
)
def test_number_and_names(good: Path, count: int, names: list[str] | None, message: str) -> None:
    """Catches names that would write outside the directory or over each other."""
    with pytest.raises(UserError, match=message):
        open_specialists([good] * count, names)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(
    ("name", "value"), [(NORM, NAN), ("model.layers.1.mlp.up_proj.weight", -INF), (EMBEDDING, INF), (HEAD, NAN)]
)
def test_numbers_that_are_not_finite(good: Path, tmp_path: Path, name: str, value: float, dtype: torch.dtype) -> None:
    """Catches nan or inf that is fused or averaged without a word, in a table, a matrix or a norm."""
    bad = tiny_specialist(tmp_path / "bad", seed=1, dtype=dtype)
    edit_tensors(bad, lambda t: t[name][-1:].view(-1)[0].fill_(value))
    for make in (fuse, average_merge):
        with pytest.raises(UserError) as caught:
            make([bad, good], tmp_path / "out")
        assert str(caught.value).startswith(f"specialist 'bad': tensor {name} holds numbers that are not finite")
        assert f"fetch {bad} again" in str(caught.value) and [path.name for path in tmp_path.iterdir()] == ["bad"]


def test_dropped_rows_that_are_not_finite(good: Path, tmp_path: Path) -> None:
    """Catches nan in rows that no fused tensor has, but that `extract` would give back."""
    bad = tiny_specialist(tmp_path / "bad", seed=1, vocab_size=384)
    edit_tensors(bad, lambda t: t[HEAD][383, 5].fill_(NAN))
    with pytest.raises(UserError, match=r"tensor lm_head\.weight holds numbers that are not finite"):
        fuse([bad, good], tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]


def test_numbers_too_large_for_the_dtype(good: Path, tmp_path: Path) -> None:
    """Catches a cast to float16 that makes inf of large numbers, in a matrix and in a table."""
    for name in ("model.layers.1.mlp.up_proj.weight", EMBEDDING):
        shutil.copytree(good, bad := tmp_path / name)
        edit_tensors(bad, lambda t, name=name: t[name][3, 4].fill_(1e5))
        with pytest.raises(
            UserError, match=rf"specialist 'bad': tensor {name} holds numbers too large for float16; give --dtype"
        ):
            fuse([good, bad], tmp_path / "out", names=["good", "bad"], options=FuseOptions(dtype="float16"))
        assert not (tmp_path / "out").exists()
        fuse([good, bad], tmp_path / f"{name}-fused", names=["good", "bad"], options=FuseOptions(dtype="bfloat16"))


def test_what_is_no_weight_is_ignored(good: Path, tmp_path: Path) -> None:
    """Catches a refusal of old Llama checkpoints, which hold their rotary tables too."""
    shutil.copytree(good, tmp_path / "old")
    edit_tensors(tmp_path / "old", lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}))
    assert open_specialist(str(tmp_path / "old"), "old").tensors.keys() == open_specialist(str(good), "good").tensors.keys()


@pytest.mark.parametrize(("differ", "tied"), [(False, True), (True, False)])
def test_tied_checkpoint_with_two_tables(tmp_path: Path, differ: bool, tied: bool) -> None:
    """Catches a head that is thrown away because the config says tied; transformers keeps it when it differs."""
    folder = tiny_specialist(tmp_path / "tied", tie=True)
    edit_tensors(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] + differ}))
    assert open_specialist(str(folder), "tied").tied is tied


def test_extra_tokens_and_padded_rows_are_no_obstacle(good: Path, tmp_path: Path) -> None:
    """Catches a refusal of CodeLlama's 16 further tokens or of padded embedding tables."""
    longer = tiny_specialist(tmp_path / "code", seed=1, tokenizer=tiny_tokenizer(extra_tokens=("<PRE>", "<SUF>")), vocab_size=384)
    fused = fuse([good, longer], tmp_path / "fused")
    assert json.loads((fused / "config.json").read_text())["slot_start"] == 320
    assert load_file(fused / "specialists" / "code" / "dropped_rows.safetensors")["lm_head.weight"].shape == (64, 32)


@pytest.mark.parametrize("out", ["good", ".", "good/../.."])
def test_what_is_read_is_never_replaced(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    """Catches --overwrite of a specialist, or of a directory that holds it, with what was made of it."""
    shutil.copytree(good, tmp_path / "work" / "good")
    other = tiny_specialist(tmp_path / "other", seed=1)
    monkeypatch.chdir(tmp_path / "work")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    for make in (partial(fuse, options=FuseOptions(overwrite=True)), partial(average_merge, overwrite=True)):
        with pytest.raises(UserError, match=r"is or holds .*; choose another output"):
            make(["good", other], out)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_a_file_is_never_replaced_by_a_directory(good: Path, tmp_path: Path) -> None:
    """Catches --overwrite that takes away a file because its name was typed in the place of an output directory."""
    other, file = tiny_specialist(tmp_path / "other", seed=1), tmp_path / "script.py"
    file.write_text("print(1)")
    for make in (partial(fuse, options=FuseOptions(overwrite=True)), partial(average_merge, overwrite=True)):
        with pytest.raises(UserError, match=r"script\.py: is a file; give the name of a directory"):
            make([good, other], file)
    assert file.read_text() == "print(1)"


def test_a_text_in_the_place_of_a_list(good: Path, tmp_path: Path) -> None:
    """Catches specialists and names of one letter each."""
    for given, names in (("text", None), ([good, good], "ab")):
        with pytest.raises(UserError, match=r"='(text|ab)': must be Sequence.*, such as \['(text|ab)'\]$"):
            fuse(given, tmp_path / "out", names=names)


def test_empty_name() -> None:
    """Catches an empty name taken for the current directory."""
    with pytest.raises(UserError, match="an empty name is given; give a directory"):
        open_specialist("", "a")


def test_a_prompt_in_the_place_of_a_model() -> None:
    """Catches a traceback for what is too long for a path, with or without a slash in it."""
    for text in ("what is this " * 50, "what is this " * 50 + "/ or that"):
        for read in (partial(open_specialist, name="a"), load):
            with pytest.raises(UserError, match="no such directory"):
                read(text)
