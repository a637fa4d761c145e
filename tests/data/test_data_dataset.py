"""Encoding conversations with a word-level fake of the template, so that every expected token is written by hand."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from torch.utils.data import DataLoader

from ultrafuser.data import dataset as module
from ultrafuser.data.collate import Collator
from ultrafuser.data.conversations import Conversation
from ultrafuser.data.dataset import encode_dataset, fitting_length
from ultrafuser.errors import UserError
from ultrafuser.tokens.encode import EncodedConversation

USER, END = 1, 2  # before a user's words, which are numbers; after an answer's


@pytest.fixture(autouse=True)
def words_are_tokens(monkeypatch):
    """Pieces are one token before each question and one after each answer; content "7 8" is tokens 7 and 8."""

    def encode(tokenizer, pieces, messages):
        assert pieces == "pieces of tokenizer"
        ids, answers, ends = [], [], []
        for message in messages:
            words = [int(word) for word in message["content"].split()]
            answer = message["role"] == "assistant"
            ids += [*words, END] if answer else [USER, *words]
            answers += [answer] * (len(words) + 1)
            ends += [len(ids)] if answer else []
        return EncodedConversation(ids, answers, ends)

    monkeypatch.setattr(module, "read_pieces", lambda tokenizer: f"pieces of {tokenizer}")
    monkeypatch.setattr(module, "encode_conversation", encode)


def conversation(domain, *contents):
    messages = [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]
    return Conversation(domain, messages, f"a.jsonl line {len(contents)}")


def encode(conversations, *, domains=("text", "math"), max_length=8):
    return encode_dataset(conversations, "tokenizer", domains=domains, max_length=max_length, progress=False)


def lists(item):
    return item["input_ids"].tolist(), item["labels"].tolist(), item["domain_id"]


TWO_TURNS = conversation("math", "7 8", "9", "10", "11 12")  # 1 7 8 9 2 1 10 11 12 2: turns end at 5 and 10
SHORT = conversation("text", "3", "4")  # 1 3 4 2


def test_labels_and_spans():
    """Catches loss on questions or template, a lost end token, and examples that bleed into their neighbours."""
    data = encode([TWO_TURNS, SHORT, TWO_TURNS], max_length=10)
    two_turns = ([1, 7, 8, 9, 2, 1, 10, 11, 12, 2], [-100, -100, -100, 9, 2, -100, -100, 11, 12, 2], 1)
    assert [lists(data[i]) for i in range(3)] == [two_turns, ([1, 3, 4, 2], [-100, -100, 4, 2], 0), two_turns]
    assert lists(data[-2]) == lists(data[1]) and len(data) == 3
    assert data.domains == ["text", "math"] and data.domain_ids.tolist() == [1, 0, 1]
    assert data[0]["input_ids"].dtype == data[0]["labels"].dtype == data.tokens.dtype == np.int32
    assert data.summary() == "3 examples (text 1, math 2), 24 tokens; max_length 10"
    for index in (3, -4):
        with pytest.raises(IndexError):
            data[index]


@pytest.mark.parametrize(("max_length", "kept"), [(10, 10), (9, 5), (5, 5), (4, 0)])
def test_over_long_conversations_are_cut_at_a_turn(max_length, kept, caplog):
    """Catches a cut in mid-answer or one token early, labels that slip after a cut, and a cut or drop that is not told."""
    with caplog.at_level(logging.WARNING):
        data = encode([SHORT, TWO_TURNS, conversation("math", "", "5 6")], max_length=max_length)
    whole = [1, 7, 8, 9, 2, 1, 10, 11, 12, 2]
    assert [data[i]["input_ids"].tolist() for i in range(len(data))][1:-1] == ([whole[:kept]] if kept else [])
    assert lists(data[-1]) == ([1, 5, 6, 2], [-100, 5, 6, 2], 1)
    assert data.cut == {"text": 0, "math": int(kept == 5)} and data.dropped == {"text": 0, "math": int(kept == 0)}
    assert ("1 cut at a turn boundary (math 1)" in data.summary()) == (kept == 5)
    assert ("1 dropped, first exchange too long (math 1)" in data.summary()) == (kept == 0)
    assert [record.message for record in caplog.records] == ([data.summary()] if kept < 10 else [])


def test_fitting_length_against_brute_force():
    """Catches an off-by-one at either side of a turn's end."""
    random = np.random.default_rng(0)
    for _ in range(200):
        turns = random.integers(1, 6, size=random.integers(1, 5)).tolist()
        limit, fits = int(random.integers(1, 20)), 0
        for count in range(1, len(turns) + 1):
            if sum(turns[:count]) <= limit:
                fits = sum(turns[:count])
        assert fitting_length(np.cumsum(turns).tolist(), limit) == fits


def test_bad_input():
    """Catches an empty domain that training could not balance, and a domain or length that is not there."""
    with pytest.raises(UserError, match=r"domain 'math' has no example .* all 2 are longer than max_length 4; raise it"):
        encode([SHORT, TWO_TURNS, TWO_TURNS], max_length=4)
    with pytest.raises(UserError, match=r"domain 'math' has no example .* its only one is longer than max_length 4; raise it"):
        encode([SHORT, TWO_TURNS], max_length=4)
    with pytest.raises(UserError, match=r"domain 'math' has no example .* the data has none; add some"):
        encode([SHORT])
    with pytest.raises(UserError, match=r"domain 'texts' in a\.jsonl line 2 is not one of text, math; did you mean 'text'\?"):
        encode([SHORT, conversation("texts", "3", "4")])
    with pytest.raises(UserError, match="max_length is 0; it must be at least 1"):
        encode([SHORT], max_length=0)


def test_more_domains_than_specialists_and_one_domain():
    """Catches domain ids taken from the order of the data rather than of ``domains``."""
    names = ["a", "b", "c", "d", "e"]
    data = encode([conversation(name, "3", "4") for name in reversed(names)], domains=names)
    assert data.domain_ids.tolist() == [4, 3, 2, 1, 0]
    one = encode([SHORT], domains=["text"])
    assert one.domain_ids.tolist() == [0] and one.summary() == "1 example (text 1), 4 tokens; max_length 8"


def test_collated_batch():
    """Catches left padding, padding that is attended or trained on, and labels shifted against their tokens."""
    data = encode([TWO_TURNS, SHORT], max_length=9)
    batch = Collator(pad_token_id=0)([data[0], data[1]])
    assert {name: tensor.tolist() for name, tensor in batch.items()} == {
        "input_ids": [[1, 7, 8, 9, 2], [1, 3, 4, 2, 0]],
        "attention_mask": [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]],
        "labels": [[-100, -100, -100, 9, 2], [-100, -100, 4, 2, -100]],
        "domain_ids": [1, 0],
    }
    assert {str(tensor.dtype) for tensor in batch.values()} == {"torch.int64"}


@pytest.mark.parametrize(("multiple", "width"), [(1, 5), (4, 8), (5, 5), (8, 8)])
def test_padding_to_a_multiple(multiple, width):
    """Catches a width rounded down, or one multiple too far when it fits already."""
    data = encode([TWO_TURNS, SHORT], max_length=9)
    batch = Collator(pad_token_id=99, pad_to_multiple_of=multiple)([data[0], data[1]])
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape == (2, width)
    assert batch["input_ids"][1].tolist() == [1, 3, 4, 2] + [99] * (width - 4)
    assert batch["attention_mask"].sum(-1).tolist() == [5, 4]
    assert (batch["labels"] != -100).sum().item() == 4


def test_loader_workers_see_the_same_and_items_are_the_callers_own():
    """Catches a data set that breaks in another process, and an item whose change leaks into the next epoch."""
    data = encode([TWO_TURNS, SHORT], max_length=9)
    before = lists(data[0])
    (batch,) = DataLoader(data, batch_size=2, num_workers=1, collate_fn=Collator(pad_token_id=0))
    assert batch["input_ids"].tolist() == [[1, 7, 8, 9, 2], [1, 3, 4, 2, 0]]
    item = data[0]
    for array in (batch["input_ids"], item["input_ids"], item["labels"]):
        array[:] = 0
    assert lists(data[0]) == before
