"""encode_conversation against the template's own rendering and against lists written out by hand."""

from __future__ import annotations

from typing import Any

import pytest
import tokens_world as world

from ultrafuser.errors import UserError
from ultrafuser.tokens.encode import encode_conversation, encode_prompt
from ultrafuser.tokens.pieces import read_pieces
from ultrafuser.tokens.templates import load_template

CHAT = [
    {"role": "user", "content": "Sort the list"},
    {"role": "assistant", "content": "It is 51."},
    {"role": "user", "content": "  What is 17 times 3?\n"},
    {"role": "assistant", "content": "def f(x):\n    return x"},
]


def test_a_conversation_written_out_by_hand() -> None:
    """Catches a wrong loss mask (end token left out, prompt let in), a wrong place to cut, contents not stripped."""
    tokenizer = world.tokenizer("word_level")
    pieces = read_pieces(tokenizer, chat_template=load_template("ultralm2"))
    encoded = encode_conversation(tokenizer, pieces, CHAT[:2])
    tokens = ["<s>", "User", ":", "Sort", "the", "list", "Assistant", ":", "It", "is", "51", ".", "</s>"]
    assert tokenizer.convert_ids_to_tokens(encoded.input_ids) == tokens
    assert encoded.is_answer == [False] * 8 + [True] * 5
    assert encoded.turn_ends == [13]
    both = encode_conversation(tokenizer, pieces, CHAT)
    assert both.input_ids[:13] == encoded.input_ids
    assert both.turn_ends == [13, len(both.input_ids)]
    further = tokenizer.convert_ids_to_tokens([i for i, answer in zip(both.input_ids, both.is_answer, strict=True) if answer][5:])
    assert further == ["def", "f", "(", "x", "):", "return", "x", "</s>"]
    assert tokenizer.convert_ids_to_tokens(both.input_ids[13:17]) == ["User", ":", "What", "is"]


@pytest.mark.parametrize("kind", world.KINDS)
@pytest.mark.parametrize("template", ["ultralm2", "alpaca", "chatml", "llama3", "plain"])
def test_equals_what_the_template_itself_renders(kind: str, template: str) -> None:
    """Catches a conversation that a specialist would not know: its own template, tokenised whole, is the reference.

    These small tokenizers merge nothing across a border, so the two are equal, but for what the template puts
    after the last end token.
    """
    tokenizer = world.tokenizer(kind)
    jinja = load_template(template)
    pieces = read_pieces(tokenizer, chat_template=jinja)
    for messages in (CHAT, [{"role": "system", "content": "You are a helpful assistant."}, *CHAT]):
        ours = encode_conversation(tokenizer, pieces, messages)
        own = tokenizer.apply_chat_template(messages, chat_template=jinja, return_dict=False)
        assert own[: len(ours.input_ids)] == ours.input_ids
        assert ours.input_ids[-1] == pieces.end
        prompt = messages[:-1]
        own = tokenizer.apply_chat_template(prompt, chat_template=jinja, return_dict=False, add_generation_prompt=True)
        assert encode_prompt(tokenizer, pieces, prompt) == own == ours.input_ids[: len(own)]


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "needs at least one user message"),
        ([{"role": "system", "content": "x"}], "needs at least one user message"),
        ([{"role": "assistant", "content": "x"}], "message 1 has the role 'assistant' where 'user' is due"),
        ([CHAT[0], CHAT[0]], "message 2 has the role 'user' where 'assistant' is due"),
        ([CHAT[0], {"role": "tool", "content": "x"}], "message 2 has the role 'tool'"),
        ([{"role": "user", "content": None}], "message 1 has no text"),
        ([{"role": "user", "content": "a\udce9"}], "message 1 is not valid Unicode"),
    ],
)
def test_a_bad_conversation_is_one_clear_line(messages: list[dict[str, Any]], message: str) -> None:
    """Catches a conversation in the wrong order that is encoded all the same."""
    tokenizer = world.tokenizer("word_level")
    pieces = read_pieces(tokenizer, chat_template=load_template("chatml"))
    with pytest.raises(UserError, match=message):
        encode_conversation(tokenizer, pieces, messages)


def test_a_prompt_ends_with_a_user_message() -> None:
    """Catches a generation prompt put behind an answer."""
    tokenizer = world.tokenizer("word_level")
    pieces = read_pieces(tokenizer, chat_template=load_template("chatml"))
    for messages in (CHAT, []):
        with pytest.raises(UserError, match="ends with a user message"):
            encode_prompt(tokenizer, pieces, messages)
