"""How all who let a model answer call ``generate``: how long, where an answer ends, greedily; what is told where it cannot be."""

from __future__ import annotations

from typing import Any

import torch

from ultrafuser.errors import UserError, first_line

# The likeliest token at every step. What samples is None: unused, it would be warned about.
GREEDY: dict[str, Any] = {"do_sample": False, **dict.fromkeys(("temperature", "top_p", "top_k", "min_p", "typical_p"))}


def answer_options(model: Any, end: int | None, max_new_tokens: int) -> dict[str, Any]:
    """Options for an answer of at most ``max_new_tokens``; ``end`` ends it where the model's generation settings name no token.

    One answer without beams, which cannot be told word by word, and not the settings' own ``max_length``. The padding need only
    be some token.
    Raises `UserError` as `end_tokens` does.
    """
    ends = end_tokens(model) or ([] if end is None else [end])
    pad = model.generation_config.pad_token_id
    return {
        "max_new_tokens": max_new_tokens,
        "max_length": None,
        "num_beams": 1,
        "num_return_sequences": 1,
        "eos_token_id": ends or None,
        "pad_token_id": next(token for token in (pad, *ends, 0) if token is not None and token >= 0),
        "return_dict_in_generate": False,
    }


def generate(model: Any, **options: Any) -> torch.Tensor:
    """Token ids (B, T) from ``model.generate(**options)``, int64; only the settings that the model ships may be at fault.

    Raises `UserError` for settings that cannot be carried out, such as sampling at a temperature of 0.
    """
    try:
        output: torch.Tensor = model.generate(**options)
    except ValueError as error:
        raise UserError(
            f"{model.name_or_path}: its generation settings cannot be carried out ({first_line(error)}); "
            "correct its generation_config.json"
        ) from error
    return output


def end_tokens(model: Any) -> list[int]:
    """The tokens at which the model's generation settings end an answer. Raises `UserError` where one is no token's number."""
    given = model.generation_config.eos_token_id
    ends = given if isinstance(given, list) else [] if given is None else [given]
    for token in ends:
        if not isinstance(token, int):
            raise UserError(
                f"{model.name_or_path}: its generation settings end an answer at {token!r}, which is no token's number; "
                "correct eos_token_id in its generation_config.json"
            )
    return ends
