"""read_pieces and verify_pieces against pieces written out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokens_world as world
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from ultrafuser.errors import UserError
from ultrafuser.tokens.pieces import PIECES, read_pieces
from ultrafuser.tokens.templates import load_template, template_names
from ultrafuser.tokens.verify import verify_pieces

ALPACA = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
CHATML = {
    "first": "<|im_start|>user\n",
    "system_open": "<|im_start|>system\n",
    "system_close": "<|im_end|>\n<|im_start|>user\n",
    "answer": "<|im_end|>\n<|im_start|>assistant\n",
    "next": "\n<|im_start|>user\n",
    "end": "<|im_end|>",
}
HEADER = "<|start_header_id|>{}<|end_header_id|>\n\n"
LLAMA2 = {
    "first": "<s>[INST]",
    "system_open": "<s>[INST] <<SYS>>\n",
    "system_close": "\n<</SYS>>\n\n",
    "answer": " [/INST]",
    "next": "<s>[INST]",
    "end": "</s>",
}
# Written out by hand; a space that belongs to the content is not part of a piece.
BY_HAND = {
    "chatml": CHATML,
    "qwen3": CHATML,
    "qwen25": {**CHATML, "first": "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"},
    "llama2": LLAMA2,
    "codellama": LLAMA2,
    "llama3": {
        "first": "<s>" + HEADER.format("user"),
        "system_open": "<s>" + HEADER.format("system"),
        "system_close": "<|eot_id|>" + HEADER.format("user"),
        "answer": "<|eot_id|>" + HEADER.format("assistant"),
        "next": HEADER.format("user"),
        "end": "<|eot_id|>",
    },
    "alpaca": {
        "first": f"<s>{ALPACA}\n\n### Instruction:\n",
        "system_open": "<s>",
        "system_close": "\n\n### Instruction:\n",
        "answer": "\n\n### Response:",
        "next": "\n\n### Instruction:\n",
        "end": "</s>",
    },
    "ultralm2": {
        "first": "<s>User:",
        "system_open": "<s>",
        "system_close": "\nUser:",
        "answer": "\nAssistant:",
        "next": "\nUser:",
        "end": "</s>",
    },
    "plain": {"first": "<s>", "system_open": "<s>", "system_close": "\n", "answer": "\n", "next": "\n", "end": "</s>"},
}
TEMPLATES = {name: load_template(name) for name in template_names()} | {
    "qwen25": world.QWEN25,
    "qwen3": world.QWEN3,
    "llama2": world.LLAMA2,
}


@pytest.mark.parametrize("template", BY_HAND)
@pytest.mark.parametrize("kind", ["byte_level", "word_level"])
def test_pieces_are_those_written_out_by_hand(kind: str, template: str) -> None:
    """Catches a piece that is cut at the wrong place, glued to a content, or given to the wrong name."""
    tokenizer = world.tokenizer(kind)
    pieces = read_pieces(tokenizer, chat_template=TEMPLATES[template], name=template)
    for piece in PIECES:
        expected = tokenizer.encode(BY_HAND[template][piece], add_special_tokens=False)
        assert pieces[piece] == expected, piece
    assert tokenizer.convert_ids_to_tokens(pieces.end) == BY_HAND[template]["end"]
    spaced = {"llama2": {"first", "answer", "next"}, "ultralm2": {"first", "answer", "next", "system_close"}}
    spaced["codellama"] = spaced["llama2"]
    assert {piece for piece in PIECES if pieces.border(piece).space} == spaced.get(template, set())


def test_sentencepiece_pieces_have_no_space_of_their_own_inside_a_text() -> None:
    """Catches the "▁" that such a tokenizer puts before a piece tokenised alone, and a doubled space before the content."""
    for kind in ("prepend", "metaspace"):
        tokenizer = world.tokenizer(kind)
        llama2 = read_pieces(tokenizer, chat_template=world.LLAMA2)
        assert "".join(tokenizer.convert_ids_to_tokens(llama2.first)) == "<s>▁[INST]"
        assert "".join(tokenizer.convert_ids_to_tokens(llama2.answer)) == "▁[/INST]"
        ultralm2 = read_pieces(tokenizer, chat_template=TEMPLATES["ultralm2"])
        assert "".join(tokenizer.convert_ids_to_tokens(ultralm2.answer)) == "<0x0A>Assistant:"


@pytest.mark.parametrize("template", BY_HAND)
@pytest.mark.parametrize("kind", world.KINDS)
def test_pieces_and_contents_give_what_the_template_renders(kind: str, template: str) -> None:
    """Catches any departure from a specialist's own template, for every kind of tokenizer: verify finds none.

    But for the space that Llama 2 writes before its end token, which is left out and said so.
    """
    tokenizer = world.tokenizer(kind)
    pieces = read_pieces(tokenizer, chat_template=TEMPLATES[template], name=template)
    found = verify_pieces(tokenizer, pieces, TEMPLATES[template], template)
    if template in ("llama2", "codellama"):
        assert any("between an answer and '</s>'" in note for note in pieces.notes)
        assert all("at 'end' (before 'next')" in note for note in found)
    else:
        nothing = ("writes nothing between a user message and the answer",)  # a line break is no word
        assert pieces.notes == (nothing if (template, kind) == ("plain", "word_level") else ())
        assert found == []


def test_verify_names_the_border_where_a_template_would_merge() -> None:
    """Catches a verification that compares the pieces with themselves: here "?" and a line break are one token."""
    state = json.loads(world.byte_level().backend_tokenizer.to_str())
    state["pre_tokenizer"]["use_regex"] = False
    state["model"]["vocab"]["?Ċ"] = len(state["model"]["vocab"])
    state["model"]["merges"].insert(0, ["?", "Ċ"])
    tokenizer = world.wrap(Tokenizer.from_str(json.dumps(state)))
    template = "{% for m in messages %}{{ m.content + ('</s>' if m.role == 'assistant' else '\\n') }}{% endfor %}"
    found = verify_pieces(tokenizer, read_pieces(tokenizer, chat_template=template), template, "code")
    assert any(
        note.startswith("specialist 'code': at 'user' (before 'answer')") and "['?Ċ'" in note and "['?', 'Ċ'" in note
        for note in found
    ), found


def test_a_template_without_room_for_a_system_message_says_so() -> None:
    """Catches losing the system message of a template that refuses it, or one that ignores it."""
    tokenizer = world.tokenizer("byte_level")
    ignores = "{% for m in messages if m.role != 'system' %}{{ m.role + m.content + eos_token }}{% endfor %}"
    for template in (world.NO_SYSTEM, ignores):
        pieces = read_pieces(tokenizer, chat_template=template)
        assert pieces.system_open == pieces.first
        assert pieces.system_close == tokenizer.encode("\n\n", add_special_tokens=False)
        assert "cannot hold a system message: it is put before the first user message" in pieces.notes


def test_a_template_of_one_turn_opens_every_turn_alike() -> None:
    """Catches refusing a template that shows only one message, or losing its opening in a second turn."""
    tokenizer = world.tokenizer("byte_level")
    pieces = read_pieces(tokenizer, chat_template=world.ONE_TURN)
    assert pieces.next == pieces.first == tokenizer.encode("User:", add_special_tokens=False)
    assert pieces.end == tokenizer.eos_token_id
    assert any("one turn only" in note for note in pieces.notes)


def test_a_template_without_an_end_token_ends_with_eos() -> None:
    """Catches answers that never end, a beginning token taken for an end, and a missing error when there is no eos."""
    tokenizer = world.tokenizer("byte_level")
    pieces = read_pieces(tokenizer, chat_template=world.NO_END)
    assert pieces.end == tokenizer.eos_token_id
    assert pieces.next == tokenizer.encode("\nUser:", add_special_tokens=False)
    begins = "{% for m in messages %}{{ (bos_token if m.role == 'user' else '') + m.content + '\\n' }}{% endfor %}"
    assert read_pieces(tokenizer, chat_template=begins).end == tokenizer.eos_token_id
    with pytest.raises(UserError, match=r"specialist 'text'.*no end token"):
        read_pieces(world.byte_level(eos=None), chat_template=world.NO_END, name="text")


def test_a_header_that_only_finished_answers_have_is_kept() -> None:
    """Catches losing "assistant: " where the template knows no generation prompt."""
    tokenizer = world.tokenizer("byte_level")
    pieces = read_pieces(tokenizer, chat_template=world.HEADER_WITH_ANSWER)
    assert pieces.answer == tokenizer.encode("\nassistant:", add_special_tokens=False)
    assert pieces.border("answer").space


def test_notes_on_dates_thoughts_and_unlike_turns() -> None:
    """Catches silence about templates whose pieces are not the same for ever or not the same in every turn."""
    tokenizer = world.tokenizer("byte_level")
    chatml = TEMPLATES["chatml"]
    dated = read_pieces(tokenizer, chat_template="{{ strftime_now('%d %b %Y') }}" + chatml)
    assert any("date" in note for note in dated.notes)
    thinks = read_pieces(tokenizer, chat_template=chatml + "{% if add_generation_prompt %}<think>\n{% endif %}")
    assert any("<think>" in note for note in thinks.notes)
    assert tokenizer.decode(thinks.answer).endswith("assistant\n<think>\n")
    counts = "{% for m in messages %}{{ loop.index ~ m.role ~ m.content ~ eos_token }}{% endfor %}"
    assert any("otherwise when more turns follow" in note for note in read_pieces(tokenizer, chat_template=counts).notes)


def test_a_model_in_use_is_called_by_its_place(tmp_path: Path) -> None:
    """Catches a message of "specialist 'model'", and advice that only `fuse` can follow, where one trains or generates."""
    tokenizer = world.tokenizer("byte_level")
    tokenizer.save_pretrained(tmp_path / "fused")
    for template, message in (
        (None, ": its tokenizer has no chat template; put the chat_template.jinja that belongs to it there"),
        (world.DROPS_USER, ": its chat template drops the content of the first user message"),
        (world.FAILS, ": its chat template does not render a conversation of user: no chat today; correct it or give"),
    ):
        used = AutoTokenizer.from_pretrained(tmp_path / "fused")
        used.chat_template = template
        with pytest.raises(UserError) as caught:
            read_pieces(used)
        assert str(caught.value).startswith(f"{tmp_path / 'fused'}{message}")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (world.DROPS_USER, "specialist 'math': its chat template drops the content of the first user message"),
        (world.DROPS_ANSWER, "specialist 'math': its chat template drops the content of the first assistant message"),
        ("{{ messages[0].content * 2 }}", "repeats the content of the first user message"),
        (world.BROKEN, "specialist 'math': its chat template does not render"),
        (world.FAILS, "does not render a conversation of user: no chat today"),
        (None, "specialist 'math': its tokenizer has no chat template"),
        (
            "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}{{ '</s>' if loop.last else '<|eot_id|>' }}"
            "{% endif %}{% endfor %}",
            "'<|eot_id|>' inside a conversation but with '</s>' at its end",
        ),
    ],
)
def test_a_bad_template_is_one_clear_line(template: str | None, message: str) -> None:
    """Catches a traceback, or a template that silently loses a content (issue 2, "Bad input")."""
    with pytest.raises(UserError) as caught:
        read_pieces(world.tokenizer("byte_level"), chat_template=template, name="math")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
