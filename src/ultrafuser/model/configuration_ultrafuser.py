"""Configuration of a fused model: N specialists that share one vocabulary, seen as one ordinary decoder.

Everything an ordinary decoder's configuration has (``hidden_size``, ``num_hidden_layers``, ..) is derived from the
specialists' own configurations, which are kept as plain dictionaries. This file is copied into every saved checkpoint.
"""

from __future__ import annotations

import shutil
from numbers import Integral
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

SUPPORTED_ARCHITECTURES = ("llama", "mistral", "qwen2", "qwen3")
REMOTE_CODE_FILES = tuple(
    f"{part}_ultrafuser.py" for part in ("cache", "configuration", "modeling", "gate", "generation", "loss", "positions")
)
# What lists of a configuration hold, and how a message says it; the least of its own numbers.
LISTS = {
    "specialists": (dict, "configurations"),
    "specialist_names": (str, "texts"),
    "slot_visibility": (list | tuple, "lists"),
    "masked_token_ids": (Integral, "whole numbers"),
}
LEAST = {"gate_hidden_size": 1, "vocab_size": 1, "slot_start": 0, "predictable_vocab_size": 1}
AUTO_MAP = {
    "AutoConfig": "configuration_ultrafuser.UltraFuserConfig",
    "AutoModel": "modeling_ultrafuser.UltraFuserModel",
    "AutoModelForCausalLM": "modeling_ultrafuser.UltraFuserForCausalLM",
}


class UltraFuserConfig(PreTrainedConfig):
    """Configuration of a fused model.

    Args:
        specialists: each specialist's own configuration (``config.to_dict()``, with its ``model_type``), in order.
        specialist_names: a name per specialist, by default ``specialist0``, ``specialist1``, ..
        gate_hidden_size: inner size of the gate (paper, section 2: 512).
        vocab_size: ids of the fused vocabulary, slot tokens included.
        slot_start: first id of the slot tokens; ids below are the specialists' shared tokens.
        slot_visibility: S rows of N zeros and ones: may specialist j see slot token ``slot_start + s``? Empty without slots.
        predictable_vocab_size: ids from here on are never predicted (slot tokens other than the end of a turn).
        masked_token_ids: further ids that are never predicted (tokens that not all specialists have).
        tie_word_embeddings: true only if every specialist ties its tables.
    """

    model_type = "ultrafuser"
    keys_to_ignore_at_inference = ["past_key_values", "cache", "gate_weights", "token_losses"]  # noqa: RUF012

    base_model_tp_plan = {  # noqa: RUF012
        "layers.*.self_attn.q_proj": "colwise",
        "layers.*.self_attn.k_proj": "colwise",
        "layers.*.self_attn.v_proj": "colwise",
        "layers.*.self_attn.o_proj": "rowwise",
        "layers.*.mlp.gate_proj": "colwise",
        "layers.*.mlp.up_proj": "colwise",
        "layers.*.mlp.down_proj": "rowwise",
    }

    specialists: list[dict[str, Any]] | None = None
    specialist_names: list[str] | None = None
    gate_hidden_size: int = 512
    vocab_size: int | None = None
    slot_start: int | None = None
    slot_visibility: list[list[int]] | None = None
    predictable_vocab_size: int | None = None
    masked_token_ids: list[int] | None = None
    hidden_size: int | None = None
    intermediate_size: int | None = None
    num_hidden_layers: int | None = None
    num_attention_heads: int | None = None
    num_key_value_heads: int | None = None
    head_dim: int | None = None
    max_position_embeddings: int | None = None
    initializer_range: float = 0.02
    use_cache: bool = True
    tie_word_embeddings: bool = False
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self._require_kinds()
        self.specialists = [dict(own) for own in self.specialists or []]
        self.specialist_names = list(self.specialist_names or [f"specialist{j}" for j in range(len(self.specialists))])
        self.slot_visibility = [list(row) for row in self.slot_visibility or []]
        self.masked_token_ids = [int(token) for token in self.masked_token_ids or []]
        if len(self.specialist_names) != len(self.specialists):
            raise ValueError(f"{len(self.specialist_names)} specialist_names for {len(self.specialists)} specialists")
        if len(set(self.specialist_names)) < len(self.specialist_names):
            raise ValueError(f"specialist_names {', '.join(self.specialist_names)} are not all different")
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        if self.specialists:
            self._derive_geometry()
            self._fit_vocabulary()
        super().__post_init__(**kwargs)

    def _require_kinds(self) -> None:
        """Raise ValueError for a field that holds something else than it should: the library accepts whatever a file says."""
        for name, (kind, called) in LISTS.items():
            value = getattr(self, name)
            if value is not None and not (isinstance(value, list | tuple) and all(isinstance(one, kind) for one in value)):
                raise ValueError(f"{name} must be a list of {called}")
        for name, least in LEAST.items():
            value = getattr(self, name)
            if value is not None and (not isinstance(value, Integral) or isinstance(value, bool) or value < least):
                raise ValueError(f"{name} is {value!r}; it must be a whole number, at least {least}")

    def _fit_vocabulary(self) -> None:
        """Leave out what is said of ids that were cut from the vocabulary. Raises ValueError for what no cut explains."""
        size, count = int(self.vocab_size or 0), len(self.specialists or [])
        rows, masked = self.slot_visibility or [], self.masked_token_ids or []
        if any(len(row) != count or any(seen not in (0, 1) for seen in row) for row in rows):
            raise ValueError(f"slot_visibility must have rows of {count} zeros and ones, one per specialist")
        if any(token < 0 for token in masked):
            raise ValueError(f"masked_token_ids has {min(masked)}, which is no token's id")
        self.slot_visibility = rows[: max(0, size - int(self.slot_start or 0))]
        self.masked_token_ids = [token for token in masked if token < size]
        if self.predictable_vocab_size:
            self.predictable_vocab_size = min(int(self.predictable_vocab_size), size)

    def _derive_geometry(self) -> None:
        own = self.specialist_configs()
        self.hidden_size = sum(config.hidden_size for config in own)
        self.num_hidden_layers = sum(config.num_hidden_layers for config in own)
        self.intermediate_size = own[0].intermediate_size
        self.num_attention_heads = own[0].num_attention_heads
        self.num_key_value_heads = own[0].num_key_value_heads
        self.head_dim = head_dim(own[0])
        self.max_position_embeddings = min(config.max_position_embeddings for config in own)
        if self.vocab_size is None:
            self.vocab_size = min(config.vocab_size for config in own)
        if self.slot_start is None:
            self.slot_start = self.vocab_size - len(self.slot_visibility or [])
        if self.predictable_vocab_size is None:
            self.predictable_vocab_size = self.slot_start

    def specialist_configs(self) -> list[PreTrainedConfig]:
        """The specialists' own configurations as objects. Raises ValueError for an architecture that is not supported."""
        return [specialist_config(own) for own in self.specialists or []]

    @property
    def hidden_slots(self) -> list[int]:
        """Ids of the slot tokens that some specialist does not see."""
        slots = range(self.slot_start or 0, self.vocab_size or 0)
        return [slot for slot, row in zip(slots, self.slot_visibility or [], strict=False) if 0 in row]

    @property
    def hides_slots(self) -> bool:
        """Is some slot token hidden from some specialist (do their templates differ)?"""
        return bool(self.hidden_slots)

    @property
    def has_windows(self) -> bool:
        """Does some layer of some specialist attend to a sliding window only?"""
        return any(sliding_window(own) is not None for own in self.specialist_configs())

    @property
    def one_geometry(self) -> bool:
        """Have all layers of all specialists the same heads (what paged caches need)?"""
        heads = {(own.num_attention_heads, own.num_key_value_heads, head_dim(own)) for own in self.specialist_configs()}
        return len(heads) == 1


def write_code(folder: str | Path) -> None:
    """Write the code that the checkpoint in ``folder`` runs where this package is not installed."""
    for name in REMOTE_CODE_FILES:
        shutil.copyfile(Path(__file__).with_name(name), Path(folder) / name)


def specialist_config(own: dict[str, Any]) -> PreTrainedConfig:
    """Turn a specialist's configuration dictionary into an object. Raises ValueError if its architecture is not supported."""
    model_type = own.get("model_type")
    if model_type not in SUPPORTED_ARCHITECTURES:
        raise ValueError(f"architecture {model_type!r} is not supported; supported are {', '.join(SUPPORTED_ARCHITECTURES)}")
    return CONFIG_MAPPING[model_type](**{key: value for key, value in own.items() if key != "model_type"})


def head_dim(own: PreTrainedConfig) -> int:
    """Width of one attention head of a specialist."""
    return getattr(own, "head_dim", None) or own.hidden_size // own.num_attention_heads


def sliding_window(own: PreTrainedConfig) -> int | None:
    """A specialist's sliding window in tokens, or None when no layer of it uses one."""
    return (getattr(own, "sliding_window", None) or None) if "sliding_attention" in layer_types(own) else None


def layer_types(own: PreTrainedConfig) -> list[str]:
    """``full_attention`` or ``sliding_attention`` for each layer of a specialist."""
    declared = getattr(own, "layer_types", None)
    if declared:
        return list(declared)
    kind = "sliding_attention" if getattr(own, "sliding_window", None) else "full_attention"
    return [kind] * own.num_hidden_layers
