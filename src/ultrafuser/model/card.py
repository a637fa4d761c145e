"""The model card (README.md) of a fused checkpoint: what was fused from what, how it fits together, how to load it."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import yaml

from ultrafuser import hub
from ultrafuser.model.configuration_ultrafuser import UltraFuserConfig
from ultrafuser.model.lineup import LineUp
from ultrafuser.model.sources import Specialist
from ultrafuser.model.tensors import INDEX_FILE, SINGLE_FILE

USE = """## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("DIR")
model = AutoModelForCausalLM.from_pretrained("DIR", trust_remote_code=True)  # or `import ultrafuser` first, without it
prompt = tokenizer.apply_chat_template(
    [{"role": "user", "content": "..."}], add_generation_prompt=True, return_tensors="pt", return_dict=True
)
print(tokenizer.decode(model.generate(**prompt, max_new_tokens=256)[0]))
```
"""


def model_card(specialists: Sequence[Specialist], lineup: LineUp, config: UltraFuserConfig) -> str:
    """The whole card as Markdown."""
    names = ", ".join(one.name for one in specialists)
    parts = [
        f"---\n{yaml.safe_dump(_metadata(specialists), sort_keys=False)}---\n",
        f"# A fused model of {len(specialists)} specialists: {names}\n",
        "Every token runs through all specialists; a gate weighs their last hidden states per token, and the logits are the\n"
        "weighted sum (UltraFuser, arXiv 2403.08281). A gate fresh from `ultrafuser fuse` is untrained: train it with\n"
        "`ultrafuser train` before use.\n",
        USE,
        _table(specialists),
        _list("Notes", _notes(specialists, config)),
        _list("Vocabulary", _vocabulary(lineup, config)),
        _list("Chat templates", _templates(lineup)),
        _list("Files it was made from (sha256)", _hashes(specialists)),
        _list("Versions", [f"{name} {version(name)}" for name in ("ultrafuser", "transformers", "torch")]),
    ]
    return "\n".join(parts)


def _metadata(specialists: Sequence[Specialist]) -> dict[str, object]:
    ids = [hub.split_revision(one.given)[0] for one in specialists if not Path(one.given).expanduser().exists()]
    base = {"base_model": ids, "base_model_relation": "merge"} if ids else {}
    return {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["ultrafuser", "merge"], **base}


def _table(specialists: Sequence[Specialist]) -> str:
    rows = ["| name | from | architecture | layers | width | rows | dtype |", "|---|---|---|---|---|---|---|"]
    for one in specialists:
        adapter = f" (adapter on `{hub.origin(one.folder)}`)" if one.adapter else ""
        c, dtype, place = one.config, str(one.dtype).removeprefix("torch."), hub.origin(one.adapter or one.folder)
        cells = (one.name, f"`{place}`{adapter}", c.model_type, c.num_hidden_layers, c.hidden_size, one.rows, dtype)
        rows.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(["## Specialists\n", *rows, ""])


def _notes(specialists: Sequence[Specialist], config: UltraFuserConfig) -> Iterator[str]:
    yield f"weights in {str(config.dtype).removeprefix('torch.')}, the gate in float32"
    yield from (f"{one.name}: {note}" for one in specialists for note in one.notes)


def _vocabulary(lineup: LineUp, config: UltraFuserConfig) -> Iterator[str]:
    plan = lineup.plan
    masked = len(plan.masked_token_ids)
    yield f"{plan.slot_start} shared ids, the tokenizer of {lineup.agreement.base}; {masked} of them never predicted"
    yield f"{len(plan.slot_tokens)} slot tokens that stand for the pieces of the specialists' chat templates"
    yield f"embedding and lm_head are {'one table' if config.tie_word_embeddings else 'two tables'}"
    yield from lineup.agreement.notes


def _templates(lineup: LineUp) -> Iterator[str]:
    alike = "each specialist keeps its own" if lineup.plan.slot_tokens else "all specialists have the same"
    yield f"{alike}; the fused tokenizer's template writes them all at once"
    for name, pieces in lineup.pieces.items():
        yield from (f"{name}: {note}" for note in pieces.notes)


def _hashes(specialists: Sequence[Specialist]) -> Iterator[str]:
    for one in specialists:
        for folder in dict.fromkeys((one.folder, one.adapter or one.folder)):
            for name in ("config.json", "adapter_config.json", INDEX_FILE, SINGLE_FILE, "adapter_model.safetensors"):
                if (folder / name).is_file():
                    yield f"{one.name}: {name}{_hash(folder / name)}"


def _hash(file: Path) -> str:
    """Of a weights file only the header, which costs nothing to read, however large the file."""
    with open(file, "rb") as stream:
        if file.suffix != ".safetensors":
            return f" `{hashlib.sha256(stream.read()).hexdigest()}`"
        prefix = stream.read(8)
        return f" (header) `{hashlib.sha256(prefix + stream.read(struct.unpack('<Q', prefix)[0])).hexdigest()}`"


def _list(title: str, lines: Iterable[str]) -> str:
    return "\n".join([f"## {title}\n", *(f"- {line}" for line in lines), ""])
