"""Slots against each specialist's own template written out by hand, and the fused tokenizer against encode_conversation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import pytest
import tokens_world as world
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ultrafuser.errors import UserError
from ultrafuser.tokens.encode import encode_conversation, encode_prompt
from ultrafuser.tokens.pieces import TemplatePieces, read_pieces
from ultrafuser.tokens.slots import SlotPlan, build_fused_tokenizer, plan_slots
from ultrafuser.tokens.templates import load_template
from ultrafuser.tokens.vocabulary import agree

SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
CHAT = [
    {"role": "user", "content": " Sort the list\n"},
    {"role": "assistant", "content": "It is 51."},
    {"role": "user", "content": "What is 17 times 3?"},
    {"role": "assistant", "content": "def f(x):\n    return x"},
]
BELOW = "<s>Below is an instruction that describes a task. Write a response that appropriately completes the request."


def fuse(
    tokenizer: PreTrainedTokenizerBase, **templates: str
) -> tuple[dict[str, TemplatePieces], SlotPlan, PreTrainedTokenizerBase]:
    """Pieces, plan and fused tokenizer of specialists that share ``tokenizer`` and have these templates."""
    pieces = {name: read_pieces(tokenizer, chat_template=template, name=name) for name, template in templates.items()}
    size = len(tokenizer)
    agreement = agree(dict.fromkeys(templates, tokenizer), dict.fromkeys(templates, size))
    plan = plan_slots(pieces, agreement, tokenizer)
    return pieces, plan, build_fused_tokenizer(tokenizer, plan)


def seen_by(plan: SlotPlan, j: int, ids: list[int]) -> list[int]:
    """The tokens that specialist j reads, in its own vocabulary."""
    own = [plan.slot_sources[i - plan.slot_start][j] if i >= plan.slot_start else i for i in ids]
    return [i for i in own if i is not None]


def three() -> dict[str, str]:
    return {"text": load_template("ultralm2"), "code": load_template("chatml"), "math": load_template("alpaca")}


def test_each_specialist_sees_its_own_template() -> None:
    """Catches a slot that shows or hides the wrong token, wrong alignment, a wrong end: the reference is written by hand."""
    tokenizer = world.tokenizer("byte_level")
    _, plan, fused = fuse(tokenizer, **three())
    ids = fused.apply_chat_template(CHAT, return_dict=False)
    question, answer, further, last = (message["content"].strip() for message in CHAT)
    inst, resp = "\n\n### Instruction:\n", "\n\n### Response:"
    user, assistant = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
    by_hand = [
        [
            "<s>User:",
            " ",
            question,
            "\nAssistant:",
            " ",
            answer,
            "</s>",
            "\nUser:",
            " ",
            further,
            "\nAssistant:",
            " ",
            last,
            "</s>",
        ],
        [user, question, assistant, answer, "<|im_end|>", "\n" + user, further, assistant, last, "<|im_end|>"],
        [BELOW + inst, question, resp, answer, "</s>", inst, further, resp, last, "</s>"],
    ]
    for j, texts in enumerate(by_hand):
        assert seen_by(plan, j, ids) == [i for text in texts for i in tokenizer.encode(text, add_special_tokens=False)]


@pytest.mark.parametrize("kind", world.KINDS)
def test_each_specialist_sees_its_own_pieces_around_shared_contents(kind: str) -> None:
    """Catches the same faults for every kind of tokenizer, with a system message: pieces one by one, contents cut out."""
    tokenizer = world.tokenizer(kind)
    pieces, plan, fused = fuse(tokenizer, **three(), llama=world.LLAMA2)
    messages = [SYSTEM, *CHAT]
    ids = fused.apply_chat_template(messages, return_dict=False)
    contents: list[list[int]] = [[]]
    for i in ids:  # stretches of shared tokens between slots
        if i < plan.slot_start:
            contents[-1].append(i)
        elif contents[-1]:
            contents.append([])
    assert len(contents) == 6
    strip = str if kind == "byte_level" else lambda text: "".join(text.split())
    for content, message in zip(contents, messages, strict=False):
        assert strip(tokenizer.decode(content).strip()) == strip(message["content"].strip()) or kind == "word_level"
    space = tokenizer.encode(" ", add_special_tokens=False) if kind in ("byte_level", "metaspace_first") else []
    for j, own in enumerate(pieces.values()):
        glue = {piece: space * border.space for piece, border in own.borders.items()}
        expected = [*own.system_open, *glue["system_open"], *contents[0]]
        for turn, opening in enumerate(["system_close", "next"]):
            expected += [*own[opening], *glue[opening], *contents[1 + 2 * turn]]
            expected += [*own.answer, *glue["answer"], *contents[2 + 2 * turn], own.end]
        assert seen_by(plan, j, ids) == expected


@pytest.mark.parametrize("kind", world.KINDS)
@pytest.mark.parametrize("names", [("ultralm2", "codellama"), ("alpaca", "chatml", "ultralm2"), ("llama3", "plain")])
def test_the_fused_template_and_encode_conversation_agree(kind: str, names: tuple[str, ...], tmp_path: Path) -> None:
    """Catches training on other tokens than generation uses, a wrong loss mask, and ids that change on saving."""
    _, plan, fused = fuse(world.tokenizer(kind), **{name: load_template(name) for name in names})
    fused.save_pretrained(tmp_path)
    for tokenizer in (fused, AutoTokenizer.from_pretrained(tmp_path)):
        pieces = read_pieces(tokenizer, name="fused")
        assert pieces.notes == ()
        assert pieces.end == plan.end_token_id == tokenizer.eos_token_id
        for messages in (CHAT, CHAT[:2], [SYSTEM, *CHAT]):
            ours = encode_conversation(tokenizer, pieces, messages)
            own = tokenizer.apply_chat_template(messages, return_assistant_tokens_mask=True)
            assert ours.input_ids == own["input_ids"]
            assert ours.is_answer == [bool(mask) for mask in own["assistant_masks"]]
            prompt = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
            assert encode_prompt(tokenizer, pieces, messages[:-1]) == prompt == ours.input_ids[: len(prompt)]
        assert tokenizer.convert_tokens_to_ids(plan.slot_tokens) == list(
            range(plan.slot_start, plan.slot_start + len(plan.slot_tokens))
        )
        assert tokenizer.decode(ours.input_ids, skip_special_tokens=True).count("<|") == 0


def test_shorter_pieces_are_aligned_to_the_right() -> None:
    """Catches alignment to the left, which would hide the last slot before an answer; and a pad that somebody sees."""
    tokenizer = world.tokenizer("word_level")
    _, plan, fused = fuse(tokenizer, a=world.NO_END, b=load_template("alpaca"))
    assert plan.slot_tokens[-1] == fused.pad_token == "<|uf:pad|>"
    sources = dict(zip(plan.slot_tokens, plan.slot_sources, strict=True))
    assert sources["<|uf:pad|>"] == [None, None]
    width = max(int(token.split(":")[2][:-2]) for token in sources if token.startswith("<|uf:answer:")) + 1
    columns = list(zip(*(sources[f"<|uf:answer:{i}|>"] for i in range(width)), strict=True))
    tokens = [[None if i is None else tokenizer.convert_ids_to_tokens(i) for i in column] for column in columns]
    assert tokens == [[None, "Assistant", ":"], ["###", "Response", ":"]]


def test_the_end_is_a_slot_only_where_ends_differ() -> None:
    """Catches an end that cannot be predicted, a slot that can, and an own end token that does not stop generation."""
    tokenizer = world.tokenizer("byte_level")
    start, (eos, im_end) = len(tokenizer), tokenizer.convert_tokens_to_ids(["</s>", "<|im_end|>"])
    _, differ, _ = fuse(tokenizer, **three())
    assert (differ.slot_tokens[0], differ.end_token_id, differ.end_sources) == ("<|uf:end|>", start, [eos, im_end, eos])
    assert differ.slot_sources[0] == [eos, im_end, eos]
    assert (differ.predictable_vocab_size, differ.eos_token_ids) == (start + 1, [start, eos, im_end])
    _, alike, _ = fuse(tokenizer, a=load_template("ultralm2"), b=load_template("alpaca"))
    assert (alike.end_token_id, alike.predictable_vocab_size, alike.eos_token_ids) == (eos, start, [eos])
    assert "<|uf:end|>" not in alike.slot_tokens


def test_one_common_template_needs_no_slots() -> None:
    """Catches slots where ordinary tokens do, which engines without masks could not serve."""
    tokenizer = world.byte_level()
    tokenizer.chat_template = world.QWEN25
    _, plan, fused = fuse(tokenizer, a=world.QWEN25, b=world.QWEN25)
    assert (plan.slot_tokens, plan.slot_sources, plan.notes) == ([], [], ())
    assert plan.predictable_vocab_size == plan.slot_start == len(fused) == len(tokenizer)
    assert fused.chat_template == plan.chat_template == world.QWEN25
    assert fused.eos_token == fused.pad_token == "<|im_end|>"
    assert fused.apply_chat_template(CHAT) == tokenizer.apply_chat_template(CHAT)
    assert tokenizer.pad_token is None and tokenizer.eos_token == "</s>"  # the base itself is left as it was


def test_equal_pieces_of_a_token_that_is_not_shared_become_slots() -> None:
    """Catches a common template that needs a token of the same id but another meaning: it would be masked."""
    tokenizer = world.byte_level()
    tokenizer.chat_template = load_template("chatml")
    pieces = dict.fromkeys("ab", read_pieces(tokenizer))
    agreement = agree(dict.fromkeys("ab", tokenizer), {"a": len(tokenizer), "b": tokenizer.convert_tokens_to_ids("<|im_end|>")})
    plan = plan_slots(pieces, agreement, tokenizer)
    assert plan.slot_tokens[0] == "<|uf:end|>"
    assert plan.end_token_id == plan.slot_start


def test_spaces_before_contents() -> None:
    """Catches "word" where all specialists know " word", and silence where only some do."""
    tokenizer = world.tokenizer("byte_level")
    _, alike, fused = fuse(tokenizer, a=load_template("ultralm2"), b=load_template("codellama"))
    text = fused.apply_chat_template(CHAT, tokenize=False)
    assert "|> Sort the list<|" in text and "|> It is 51.</s>" in text
    (note,) = alike.notes
    assert note == "'a' knows a content after system_close with a space joined to it, the fused template has not"
    _, unlike, _ = fuse(tokenizer, a=load_template("ultralm2"), b=load_template("chatml"))
    assert any(
        note.startswith("'a' knows a content after first, system_close, answer, next with a space") for note in unlike.notes
    )
    _, unlike, _ = fuse(world.tokenizer("prepend"), a=load_template("ultralm2"), b=load_template("chatml"))
    assert any(
        note.startswith("'b' knows a content after first, system_open, system_close, answer, next with no space")
        for note in unlike.notes
    )


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([CHAT[0], CHAT[0]], 'the role "user" stands where "assistant" is due'),
        ([CHAT[1]], 'the role "assistant" stands where "user" is due'),
        ([CHAT[0], {"role": "tool", "content": "x"}], 'the role "tool" stands where "assistant" is due'),
        ([SYSTEM], "needs at least one user message"),
        ([{"role": "user", "content": [{"type": "text", "text": "x"}]}], "message 1 has no text"),
    ],
)
def test_the_fused_template_refuses_what_it_does_not_know(messages: list[dict[str, Any]], message: str) -> None:
    """Catches messages dropped or reordered in silence."""
    _, _, fused = fuse(world.tokenizer("byte_level"), **three())
    with pytest.raises(jinja2.TemplateError, match=message):
        fused.apply_chat_template(messages)


def test_a_fused_tokenizer_is_not_fused_again() -> None:
    """Catches two sets of slot tokens under the same names."""
    _, plan, fused = fuse(world.tokenizer("byte_level"), **three())
    with pytest.raises(UserError, match="cannot be fused again"):
        build_fused_tokenizer(fused, SlotPlan(**{**plan.__dict__, "slot_start": len(fused)}))
