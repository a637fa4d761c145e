"""A file on disk to a batch, with real tokenizers and templates, against the chat template rendered as text."""

from __future__ import annotations

import json

import pytest
from transformers import AutoTokenizer

from tiny import tiny_tokenizer
from ultrafuser.data.collate import Collator
from ultrafuser.data.conversations import read_conversations
from ultrafuser.data.dataset import encode_dataset
from ultrafuser.errors import UserError


def roles(*contents):
    return [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]


RECORDS = [
    {"domain": "code", "messages": roles("def add", "return first", "What is the sum?", "The sum is 42.")},
    {"domain": "text", "messages": [{"role": "system", "content": "The dog."}, *roles("The lazy fox", "over the dog")]},
    {"domain": "math", "prompt": "12 and 30?", "response": "42"},
]


def reference(tokenizer, messages):
    """Render the template as one text, tokenise it whole, and mark what lies in an answer or in the end after it."""
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    answers, place = [], 0
    for message in messages:
        start = text.index(message["content"], place)
        place = start + len(message["content"])
        if message["role"] == "assistant":
            answers.append(range(start, place + len(tokenizer.eos_token)))
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    kept = [index for index, (_, end) in enumerate(encoded["offset_mapping"]) if end <= answers[-1].stop]
    ids = [encoded["input_ids"][index] for index in kept]
    starts = [encoded["offset_mapping"][index][0] for index in kept]
    labels = [i if any(start in answer for answer in answers) else -100 for i, start in zip(ids, starts, strict=True)]
    return ids, labels


@pytest.mark.parametrize("template", ["chatml", "inst"])
def test_file_to_batch(template, tmp_path):
    """Catches data, pieces and collation that fit their own tests but not each other."""
    tokenizer = tiny_tokenizer(template)
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS))
    domains = ["text", "code", "math"]
    conversations = read_conversations(path, domains=domains)
    data = encode_dataset(conversations, tokenizer, domains=domains, max_length=512, progress=False)
    batch = Collator(tokenizer.pad_token_id)([data[index] for index in range(3)])
    for row, conversation in enumerate(conversations):
        ids, labels = reference(tokenizer, conversation.messages)
        padding = batch["input_ids"].shape[1] - len(ids)
        assert batch["input_ids"][row].tolist() == ids + [tokenizer.pad_token_id] * padding
        assert batch["labels"][row].tolist() == labels + [-100] * padding
        assert batch["attention_mask"][row].tolist() == [1] * len(ids) + [0] * padding
    assert batch["domain_ids"].tolist() == [1, 0, 2]


def test_a_model_without_a_chat_template(tmp_path):
    """Catches advice that training cannot take ("name one of ours") and a model called 'model' instead of by its place."""
    tiny_tokenizer().save_pretrained(tmp_path / "fused")
    (tmp_path / "fused" / "chat_template.jinja").unlink()
    (tmp_path / "train.jsonl").write_text(json.dumps(RECORDS[2]))
    conversations = read_conversations(tmp_path / "train.jsonl", domains=["math"])
    with pytest.raises(UserError, match=r"^\S*/fused: its tokenizer has no chat template; put the chat_template\.jinja that"):
        encode_dataset(conversations, AutoTokenizer.from_pretrained(tmp_path / "fused"), domains=["math"], max_length=9)
