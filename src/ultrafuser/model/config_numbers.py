"""Numbers of a specialist's config.json that no model can have; transformers accepts some, and stumbles over others unclearly."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from ultrafuser.errors import UserError
from ultrafuser.refused import dotted, refused
from ultrafuser.schema import Count, Decay, Number, Positive, Rate


class _Rope(BaseModel):
    rope_theta: Rate | None = None
    factor: Rate | None = None


class _Numbers(BaseModel):
    """Those of the supported architectures; what is not there is as transformers has it."""

    vocab_size: Positive | None = None
    hidden_size: Positive | None = None
    intermediate_size: Positive | None = None
    num_hidden_layers: Positive | None = None
    num_attention_heads: Positive | None = None
    num_key_value_heads: Positive | None = None
    head_dim: Positive | None = None
    max_position_embeddings: Positive | None = None
    sliding_window: Count | None = None  # 0: none
    rms_norm_eps: Decay | None = None
    attention_dropout: Annotated[Number, Field(ge=0, lt=1)] | None = None
    rope_theta: Rate | None = None
    rope_parameters: _Rope | None = None
    rope_scaling: _Rope | None = None  # an older name


def require_possible_numbers(file: Path, config: dict[str, Any]) -> None:
    """Raise `UserError` for the first number in ``config``, the content of ``file``, that no model can have."""
    try:
        _Numbers.model_validate(config)
    except ValidationError as error:
        place, text = next(iter(refused(_Numbers, error).items()))
        raise UserError(f"{file}: {dotted(place)}{text}; fetch it again, or mend it") from None
