"""Where answers end, whatever a model's generation settings say."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from transformers import GenerationConfig

from ultrafuser.errors import UserError
from ultrafuser.model.decoding import answer_options, end_tokens


def named(**settings):
    """Something with these generation settings, and a name."""
    return SimpleNamespace(name_or_path="place", generation_config=GenerationConfig(**settings))


@pytest.mark.parametrize(
    ("settings", "end", "ends", "pad"),
    [
        ({"eos_token_id": [7, 9], "pad_token_id": 3}, 5, [7, 9], 3),
        ({"eos_token_id": 7}, 5, [7], 7),
        ({}, 5, [5], 5),
        ({}, None, None, 0),
        ({"eos_token_id": [], "pad_token_id": 3}, None, None, 3),
        ({"eos_token_id": 7, "pad_token_id": -1}, 5, [7], 7),
    ],
)
def test_ends_and_padding(settings, end, ends, pad):
    """Catches a template's end beside the settings' own, an empty list of ends, and padding that no table of tokens has."""
    options = answer_options(named(**settings), end, 4)
    assert (options["eos_token_id"], options["pad_token_id"], options["max_new_tokens"]) == (ends, pad, 4)


@pytest.mark.parametrize("given", ["abc", 2.5, {"a": 1}, [2, "x"]])
def test_ends_that_are_no_tokens_are_one_line(given):
    """Catches a traceback from inside torch; the line must name the model and the file."""
    with pytest.raises(UserError, match=r"^place: .* which is no token's number; correct eos_token_id in its generation_config"):
        end_tokens(named(eos_token_id=given))
