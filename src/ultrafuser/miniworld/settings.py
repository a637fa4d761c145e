"""The geometry of the tiny models and how they are trained, found by trying (docs/design.md): every specialist is good at its own
domain and near zero at the others, within a minute on two cores."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import LlamaConfig

from ultrafuser.miniworld.language import vocabulary


@dataclass(frozen=True)
class Geometry:
    """A small Llama."""

    hidden_size: int = 128
    intermediate_size: int = 256
    num_hidden_layers: int = 3
    num_attention_heads: int = 4
    max_position_embeddings: int = 256
    initializer_range: float = 0.02

    def llama_config(self) -> LlamaConfig:
        """The configuration with the world's vocabulary; ids of the special tokens are 0 (pad), 1 (start), 2 (end)."""
        return LlamaConfig(
            vocab_size=len(vocabulary()),
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            num_key_value_heads=self.num_attention_heads,
            max_position_embeddings=self.max_position_embeddings,
            initializer_range=self.initializer_range,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            tie_word_embeddings=False,
        )


@dataclass(frozen=True)
class MiniworldSettings:
    """Seeds, sizes and steps. ``specialist_steps`` has one number per domain; a base step takes ``batch`` raw prompts."""

    geometry: Geometry = field(default_factory=Geometry)
    seed: int = 0
    batch: int = 32
    base_steps: int = 80
    base_learning_rate: float = 3e-3
    specialist_steps: dict[str, int] = field(default_factory=lambda: {"text": 250, "code": 250, "math": 250})
    specialist_learning_rate: float = 3e-3
    warmup_steps: int = 20
    train_tasks: int = 10_000
    test_tasks: int = 300
    max_new_tokens: int = 32
