"""The model card (README.md) of a fused checkpoint: what was fused from what, how it fits together, how to load it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import yaml

import ultrafuser
from ultrafuser import hub
from ultrafuser.errors import plural
from ultrafuser.io import user_path
from ultrafuser.model.adapters import CONFIG_FILE, WEIGHTS_FILE
from ultrafuser.model.configuration_ultrafuser import UltraFuserConfig
from ultrafuser.model.digest import weights_digest
from ultrafuser.model.lineup import LineUp
from ultrafuser.model.notes import specialist_notes
from ultrafuser.model.sources import Specialist
from ultrafuser.model.tensors import INDEX_FILE, dtype_name, weight_files

# Training drops this.
UNTRAINED = "The gate is fresh from `ultrafuser fuse`, untrained: train it with `ultrafuser train` before use.\n\n"
USE = """## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

# or `import ultrafuser` first, without trust_remote_code
tokenizer = AutoTokenizer.from_pretrained("DIR", trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained("DIR", trust_remote_code=True)
prompt = tokenizer.apply_chat_template(
    [{"role": "user", "content": "..."}], add_generation_prompt=True, return_tensors="pt", return_dict=True
)
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=256)[0]))
```
"""
SAMPLED = (
    "Of a file of weights the header and the beginning, the middle and the end of every tensor are hashed\n"
    "(`ultrafuser.model.digest.weights_digest`).\n"
)


def model_card(specialists: Sequence[Specialist], lineup: LineUp, config: UltraFuserConfig) -> str:
    """The whole card as Markdown."""
    names = ", ".join(one.name for one in specialists)
    parts = [
        f"---\n{yaml.safe_dump(_metadata(specialists), sort_keys=False)}---\n",
        f"# A fused model of {len(specialists)} specialists: {names}\n",
        "Every token runs through all specialists; a gate weighs their last hidden states per token, and the logits are the\n"
        "weighted sum (UltraFuser, arXiv 2403.08281).\n",
        UNTRAINED + USE,
        _table(specialists),
        _list("Notes", _notes(specialists, config)),
        _list("Vocabulary", _vocabulary(lineup, config)),
        _list("Chat templates", _templates(lineup)),
        _list("Files it was made from (sha256)", _hashes(specialists)),
        SAMPLED,
        _list(
            "Versions",
            [f"ultrafuser {ultrafuser.__version__}", *(f"{name} {version(name)}" for name in ("transformers", "torch"))],
        ),
    ]
    return "\n".join(parts)


def _metadata(specialists: Sequence[Specialist]) -> dict[str, object]:
    ids = [hub.split_revision(one.given)[0] for one in specialists if not user_path(one.given).exists()]
    base = {"base_model": ids, "base_model_relation": "merge"} if ids else {}
    return {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["ultrafuser", "merge"], **base}


def _table(specialists: Sequence[Specialist]) -> str:
    rows = ["| name | from | architecture | layers | width | rows | dtype |", "|---|---|---|---|---|---|---|"]
    for one in specialists:
        adapter = f" (adapter on `{hub.origin(one.folder)}`)" if one.adapter else ""
        c, dtype, place = one.config, dtype_name(one.dtype), hub.origin(one.adapter or one.folder)
        cells = (one.name, f"`{place}`{adapter}", c.model_type, c.num_hidden_layers, c.hidden_size, one.rows, dtype)
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(["## Specialists\n", *rows, ""])


def _notes(specialists: Sequence[Specialist], config: UltraFuserConfig) -> Iterator[str]:
    dtype = config.dtype
    yield f"weights in {dtype_name(dtype)}, the gate in float32"
    yield from specialist_notes(specialists, dtype)


def _vocabulary(lineup: LineUp, config: UltraFuserConfig) -> Iterator[str]:
    plan = lineup.plan
    masked = len(plan.masked_token_ids)
    yield f"{plan.slot_start} shared ids, the tokenizer of {lineup.agreement.base}; {masked} of them never predicted"
    yield f"{plural(len(plan.slot_tokens), 'slot token')} for the pieces of the specialists' chat templates"
    yield f"embedding and lm_head are {'one table' if config.tie_word_embeddings else 'two tables'}"
    yield from lineup.agreement.notes


def _templates(lineup: LineUp) -> Iterator[str]:
    alike = "each specialist keeps its own" if lineup.plan.slot_tokens else "all specialists have the same"
    yield f"{alike}; the fused tokenizer's template writes them all at once"
    yield from lineup.template_notes


def _hashes(specialists: Sequence[Specialist]) -> Iterator[str]:
    for one in specialists:
        for file in _files(one):
            if file.suffix == ".safetensors":
                yield f"{one.name}: {file.name} (sampled) `{weights_digest(file)}`"
            else:
                yield f"{one.name}: {file.name} `{hashlib.sha256(file.read_bytes()).hexdigest()}`"


def _files(one: Specialist) -> Iterator[Path]:
    """Configuration and weights of a specialist and its adapter."""
    small = [one.folder / "config.json", one.folder / INDEX_FILE]
    own = [one.adapter / name for name in (CONFIG_FILE, WEIGHTS_FILE)] if one.adapter else []
    yield from (file for file in (*small, *weight_files(one.folder), *own) if file.is_file())


def _list(title: str, lines: Iterable[str]) -> str:
    return "\n".join([f"## {title}\n", *(f"- {line}" for line in lines), ""])
