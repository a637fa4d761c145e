"""The fused model in other people's machinery: continuous batching, remote code, PEFT, sharded files, tensor parallelism."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from transformers import AutoModelForCausalLM, GenerationConfig, MistralConfig, MistralForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers.generation import ContinuousBatchingConfig

import ultrafuser.model as model_package
from reference import VOCAB, Templates, fuse_by_hand, tiny_llama
from ultrafuser.model.configuration_ultrafuser import REMOTE_CODE_FILES, UltraFuserConfig
from ultrafuser.model.modeling_ultrafuser import UltraFuserForCausalLM

NEVER = 10**6  # an end token that nothing generates
UNLIKE = Templates(user=[[1, 2, 3, 4], [5]], answer=[[8], [9, 10, 11]])
IDS = torch.tensor([[20, 21, 22, 23, 24]])


@pytest.fixture
def fused() -> UltraFuserForCausalLM:
    return fuse_by_hand([tiny_llama(seed) for seed in range(3)])


@pytest.fixture
def saved(fused, tmp_path) -> Path:
    fused.save_pretrained(tmp_path / "fused")
    return tmp_path / "fused"


def run(code: str, *arguments: object, launcher: tuple[str, ...] = ()) -> str:
    """Run a program in a fresh process and return what it printed; its own words are shown where it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *launcher, *(("-c", code) if not launcher else (code,)), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


# Continuous batching


def served(model: UltraFuserForCausalLM, prompts: list[list[int]], tokens: int) -> list[list[int]]:
    settings = GenerationConfig(max_new_tokens=tokens, do_sample=False, eos_token_id=NEVER, pad_token_id=0)
    engine = ContinuousBatchingConfig(num_blocks=32, max_batch_tokens=48)
    out = model.generate_batch(prompts, generation_config=settings, continuous_batching_config=engine, warmup=False)
    return [out[key].generated_tokens for key in sorted(out, key=lambda key: int(key.rsplit("_", 1)[-1]))]


def test_continuous_batching_equals_generate(fused):
    """Requests of unlike length served together get the answers they get alone: catches a layer that shares a page."""
    prompts = [[20, 21, 22, 23], [30], [40, 41, 42, 43, 44, 45, 46], [25, 26]]
    expected = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = fused.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=6, eos_token_id=NEVER, pad_token_id=0
        )
        expected.append(out[0, len(prompt) :].tolist())
    fused.set_attn_implementation("sdpa")
    assert served(fused, prompts, 6) == expected


def windowed() -> UltraFuserForCausalLM:
    shape = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 4}
    own = MistralForCausalLM(MistralConfig(**shape, num_key_value_heads=2, sliding_window=4))
    return fuse_by_hand([own, tiny_llama(1)])


def other_heads() -> UltraFuserForCausalLM:
    shape = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 4}
    own = Qwen3ForCausalLM(Qwen3Config(**shape, num_key_value_heads=4, head_dim=16))
    return fuse_by_hand([own, tiny_llama(1)])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: fuse_by_hand([tiny_llama(0), tiny_llama(1)], UNLIKE), "templates differ"),
        (windowed, "sliding window"),
        (other_heads, "attention heads differ"),
    ],
    ids=["slots", "windows", "geometry"],
)
def test_continuous_batching_is_refused(make, reason):
    """A paged cache cannot serve these: one clear error before anything starts, never silently wrong answers."""
    with pytest.raises(ValueError, match=reason):
        served(make(), [[20, 21]], 2)


# Files


BLOCKED = """
import sys
sys.modules["ultrafuser"] = None  # as if it were not installed
import json, torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM
path = sys.argv[1]
ids = torch.tensor([[20, 21, 22, 23, 24]])
config = AutoConfig.from_pretrained(path, trust_remote_code=True)
base = AutoModel.from_pretrained(path, trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True)
with torch.no_grad():
    out = {"type": config.model_type, "base": model.lm_head(base(ids).last_hidden_state)[0, -1].tolist(),
           "logits": model(ids).logits[0, -1].tolist(),
           "answer": model.generate(ids, do_sample=False, max_new_tokens=5)[0].tolist(),
           "modules": [name for name in sys.modules if name.startswith("ultrafuser.")]}
print(json.dumps(out))
"""


@torch.no_grad()
def test_remote_code_without_the_package(fused, saved):
    """A checkpoint loads by all three Auto classes where ultrafuser cannot be imported, and gives the same logits."""
    assert all((saved / name).exists() for name in REMOTE_CODE_FILES)
    out = json.loads(run(BLOCKED, saved).splitlines()[-1])
    assert out["type"] == "ultrafuser" and out["modules"] == []
    expected = fused(IDS).logits[0, -1]
    torch.testing.assert_close(torch.tensor(out["logits"]), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.tensor(out["base"]), expected, atol=1e-5, rtol=1e-5)
    assert out["answer"] == fused.generate(IDS, do_sample=False, max_new_tokens=5)[0].tolist()


def test_the_code_is_named_for_every_auto_class(saved):
    """Saving the causal LM alone leaves AutoModel out of ``auto_map``; vLLM and SGLang need it."""
    auto_map = json.loads((saved / "config.json").read_text())["auto_map"]
    assert set(auto_map) == {"AutoConfig", "AutoModel", "AutoModelForCausalLM"}
    assert all(name.split(".")[0] + ".py" in REMOTE_CODE_FILES for name in auto_map.values())


@pytest.mark.parametrize("saved_before", [False, True])
@pytest.mark.parametrize("part", [lambda model: model, lambda model: model.model], ids=["causal LM", "base"])
def test_what_is_pushed_to_the_hub_has_its_code(fused, tmp_path, monkeypatch, saved_before, part):
    """Catches code files that are written only after the upload, or so early that the library takes them for old ones."""
    pushed: dict[str, bytes] = {}

    def commit(self: HfApi, repo_id: str, operations: list, **kwargs: object) -> None:
        pushed.update({one.path_in_repo: Path(one.path_or_fileobj).read_bytes() for one in operations})

    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **kwargs: SimpleNamespace(repo_id=f"me/{repo_id}"))
    monkeypatch.setattr(HfApi, "create_commit", commit)
    monkeypatch.setattr(ModelCard, "load", lambda *args, **kwargs: ModelCard("---\nlicense: mit\n---\n"))
    if saved_before:
        part(fused).save_pretrained(tmp_path / "fused")
    part(fused).save_pretrained(tmp_path / "fused", push_to_hub=True)
    assert pushed.keys() >= {*REMOTE_CODE_FILES, "config.json", "model.safetensors"}
    assert all(pushed[name] == (Path(model_package.__file__).parent / name).read_bytes() for name in REMOTE_CODE_FILES)


@torch.no_grad()
def test_shards(fused, tmp_path):
    """Many small safetensors shards hold every tensor once and load to the same logits."""
    fused.save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 3
    names = [name for shard in shards for name in safe_open(shard, "pt").keys()]  # noqa: SIM118
    assert sorted(names) == sorted(fused.state_dict())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    for name, tensor in fused.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_half_precision_keeps_the_gate_in_float32(fused, saved, dtype):
    """Loading in half precision leaves the gate, and nothing else, in float32 (``mlp.gate_proj`` has a like name)."""
    loaded = AutoModelForCausalLM.from_pretrained(saved, dtype=dtype)
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == (torch.float32 if ".gate." in name else dtype), name
    out = loaded(IDS)
    assert out.logits.dtype == dtype
    torch.testing.assert_close(out.logits.float(), fused(IDS).logits, atol=0.15, rtol=0.05)


@torch.no_grad()
def test_tied_tables_stay_tied(tmp_path):
    """One table on disk and in memory; its values are those saved."""
    own = [tiny_llama(seed, tie_word_embeddings=True).config.to_dict() for seed in range(2)]
    model = UltraFuserForCausalLM(UltraFuserConfig(specialists=own, gate_hidden_size=8, tie_word_embeddings=True)).eval()
    model.save_pretrained(tmp_path)
    assert "lm_head.weight" not in safe_open(tmp_path / "model.safetensors", "pt").keys()  # noqa: SIM118
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    torch.testing.assert_close(loaded(IDS).logits, model(IDS).logits)


# PEFT


def test_lora_on_the_fused_model(fused, tmp_path):
    """A step moves the adapters and the gate only; merging and saving both keep the logits."""
    before = {name: tensor.clone() for name, tensor in fused.state_dict().items()}
    torch.manual_seed(0)
    settings = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], modules_to_save=["gate"], task_type="CAUSAL_LM")
    model = get_peft_model(fused, settings).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for _ in range(2):  # LoRA's B starts at zero, so A moves from the second step on
        optimizer.zero_grad()
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        trained = model(input_ids=IDS).logits
        model.save_pretrained(tmp_path)
        assert {name.split(".")[-2] for name, p in model.named_parameters() if p.requires_grad} >= {"default", "linear_in"}
        merged = model.merge_and_unload()
        torch.testing.assert_close(merged(IDS).logits, trained, atol=1e-5, rtol=1e-4)
        moved = {name for name, tensor in merged.state_dict().items() if not torch.equal(tensor, before[name])}
        expected = {name for name in before if "q_proj" in name or "v_proj" in name or ".gate." in name}
        constant = {"model.gate.linear_out.bias"}  # the same for all under the softmax: moved by rounding errors or not at all
        assert moved - constant == expected - constant

        fresh = fuse_by_hand([tiny_llama(seed) for seed in range(3)])
        assert not torch.allclose(fresh(IDS).logits, trained, atol=1e-3)
        torch.testing.assert_close(
            PeftModel.from_pretrained(fresh, tmp_path)(input_ids=IDS).logits, trained, atol=1e-5, rtol=1e-4
        )


# Several devices


PARALLEL = """
import sys, torch
from transformers import AutoModelForCausalLM
import ultrafuser
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], tp_plan="auto").eval()
with torch.no_grad():
    logits = model(torch.tensor([[20, 21, 22, 23, 24]])).logits
logits = logits.full_tensor() if hasattr(logits, "full_tensor") else logits
weight = model.model.layers[0].self_attn.q_proj.weight
local = weight.to_local() if hasattr(weight, "to_local") else weight
if torch.distributed.get_rank() == 0:
    torch.save({"logits": logits, "rows": local.shape[0]}, sys.argv[2])
torch.distributed.barrier()
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
@torch.no_grad()
def test_tensor_parallel(fused, saved, tmp_path):
    """The tensor parallel plan over two processes gives the logits of one, with every process holding half of a layer."""
    program = tmp_path / "parallel.py"
    program.write_text(PARALLEL)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    run(str(program), saved, tmp_path / "out.pt", launcher=launcher)
    out = torch.load(tmp_path / "out.pt", weights_only=True)
    assert out["rows"] == fused.model.layers[0].self_attn.q_proj.weight.shape[0] // 2
    torch.testing.assert_close(out["logits"], fused(IDS).logits, atol=1e-5, rtol=1e-4)
