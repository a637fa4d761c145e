"""agree() on vocabularies that differ in ways written out by hand."""

from __future__ import annotations

import json

import pytest
import tokens_world as world
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase

from ultrafuser.errors import UserError
from ultrafuser.tokens.vocabulary import agree

WORDS = ["<unk>", "<s>", "</s>", "one", "two", "three", "four"]


def words(*extra: str, special: tuple[str, ...] = (), vocabulary: list[str] = WORDS) -> PreTrainedTokenizerBase:
    """A word-level tokenizer of these words, then further ordinary ones, then special ones."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*vocabulary, *extra])}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = world.wrap(tokenizer, extra=[])
    wrapped.add_special_tokens({"extra_special_tokens": list(special)})
    return wrapped


def test_one_vocabulary_is_shared_whole() -> None:
    """Catches a token masked for no reason and a slot on top of a token."""
    agreement = agree({"a": words(), "b": words()}, {"a": 7, "b": 7})
    assert (agreement.slot_start, agreement.masked_token_ids, agreement.base, agreement.notes) == (7, [], "a", ())


def test_tokens_that_only_some_have_are_dropped_or_masked() -> None:
    """Catches predicting a token that one specialist never saw; the base is the one with fewest of them (CodeLlama's 16)."""
    longer = {"code": words("five", "six"), "text": words(special=("[PAD]",)), "math": words("five", special=("[PAD]",))}
    agreement = agree(longer, {"code": 9, "text": 8, "math": 9})
    assert agreement.base == "text"
    assert agreement.slot_start == 8
    assert agreement.masked_token_ids == [7]  # [PAD] of text, which is "five" elsewhere
    assert "1 token id is not shared" in agreement.notes[0] and "'[PAD]'" in agreement.notes[0]
    assert agreement.notes[1] == "the fused vocabulary drops 2 tokens of 'code': 7 'five', 8 'six'"
    assert agreement.notes[2] == "the fused vocabulary drops 2 tokens of 'math': 7 'five', 8 '[PAD]'"


def test_rows_beyond_the_table_are_not_had() -> None:
    """Catches reading an embedding row that is not there; rows beyond the vocabulary (Qwen's padding) change nothing."""
    agreement = agree({"a": words(special=("<x>",)), "b": words(special=("<x>",))}, {"a": 8, "b": 7})
    assert (agreement.slot_start, agreement.masked_token_ids) == (8, [7])
    padded = agree({"a": words(), "b": words()}, {"a": 64, "b": 128})
    assert (padded.slot_start, padded.masked_token_ids) == (7, [])


def test_a_renamed_reserved_token_is_masked() -> None:
    """Catches refusing two finetunes that each used a reserved place (Llama 3) or a padding token of their own."""
    agreement = agree({"a": words(special=("<r0>", "<r1>")), "b": words(special=("<r0>", "<im_end>"))}, {"a": 9, "b": 9})
    assert (agreement.slot_start, agreement.masked_token_ids) == (9, [8])


def test_one_id_with_two_words_is_refused() -> None:
    """Catches garbled output from vocabularies that only look alike: the message names tokens and specialists."""
    swapped = words(vocabulary=["<unk>", "<s>", "</s>", "two", "one", "three", "four"])
    with pytest.raises(UserError) as caught:
        agree({"text": words(), "code": words(), "math": swapped}, {"text": 7, "code": 7, "math": 7})
    message = str(caught.value)
    assert "'text' and 'math'" in message
    assert "id 3 is 'one' in 'text' but 'two' in 'math'" in message
    assert "id 4 is 'two' in 'text' but 'one' in 'math'" in message


def test_one_word_with_two_ids_is_refused() -> None:
    """Catches a word that moved where the base's id is free in the other; and that only the first few are named."""
    many = [f"w{i}" for i in range(20)]
    moved = words(vocabulary=[*WORDS, *reversed(many)])
    with pytest.raises(UserError, match=r"id 7 is 'w0' in 'a' but 'w19' in 'b'.* and 15 more"):
        agree({"a": words(*many), "b": moved}, {"a": 27, "b": 27})
    hole = json.loads(words().backend_tokenizer.to_str())
    hole["model"]["vocab"]["four"] = 9
    other = world.wrap(Tokenizer.from_str(json.dumps(hole)), extra=[])
    with pytest.raises(UserError, match="'four' is id 6 in 'a' but id 9 in 'b'"):
        agree({"a": words(), "b": other}, {"a": 7, "b": 10})


def test_unlike_tokenisation_of_one_vocabulary_is_noted() -> None:
    """Catches two tokenizers of the same vocabulary that split numbers or words otherwise."""
    whole, bare = world.byte_level(), world.byte_level()
    model = json.loads(bare.backend_tokenizer.to_str())
    model["model"]["merges"] = model["model"]["merges"][:40]
    bare = world.wrap(Tokenizer.from_str(json.dumps(model)))
    size = len(whole)
    (note,) = agree({"a": whole, "b": bare}, {"a": size, "b": size}).notes
    assert note.startswith("'b' splits text otherwise than 'a'")
