"""Traces of a real fused model (three tiny specialists, three templates) against one unpadded forward at a time."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tiny import tiny_specialist, tiny_tokenizer
from ultrafuser.analyse.trace import END_MARK, token_texts, trace_answer, trace_conversations
from ultrafuser.data.conversations import Conversation
from ultrafuser.errors import UserError
from ultrafuser.model.fuse import fuse

NAMES = ["text", "code", "math"]


@pytest.fixture(scope="module")
def fused(tmp_path_factory):
    """Model and tokenizer, with a gate random enough for every position to have weights of its own."""
    root = tmp_path_factory.mktemp("fused")
    templates = zip(NAMES, ("user", "inst", "chatml"), strict=True)
    own = [tiny_specialist(root / name, seed=j, template=template) for j, (name, template) in enumerate(templates)]
    path = fuse(own, root / "out", names=NAMES)
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    torch.manual_seed(0)
    for parameter in model.model.gate.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model, AutoTokenizer.from_pretrained(path)


def conversation(*contents, domain="text"):
    roles = ("user", "assistant")
    return Conversation(domain, [{"role": roles[i % 2], "content": words} for i, words in enumerate(contents)], "line 1")


@torch.no_grad()
def by_hand(model, tokenizer, messages):
    """Answer tokens (found by their place in the rendered text) and the weights of the position before each."""
    ids, answer_ids, weights = [], [], []
    for turn in range(0, len(messages), 2):
        ids = tokenizer.apply_chat_template(messages[: turn + 1], add_generation_prompt=True, return_dict=False)
        answer = [*tokenizer(messages[turn + 1]["content"], add_special_tokens=False).input_ids, tokenizer.eos_token_id]
        gate = model(torch.tensor([ids + answer]), output_gate_weights=True).gate_weights[0]
        weights += [gate[len(ids) + t - 1] for t in range(len(answer))]
        answer_ids += answer
    return answer_ids, torch.stack(weights)


def test_weights_belong_to_the_predicted_token(fused):
    """Catches a shift by one token, padding that leaks in, batch order, and answers of later turns left out."""
    model, tokenizer = fused
    conversations = [
        conversation("What is the sum of 12 and 30?", "The sum is 42."),
        conversation("def", "def add(first, second): return first", "User", "lazy dog", domain="code"),
        conversation("quick", "brown", domain="math"),
    ]
    for batch_size in (1, 3):
        traces = trace_conversations(model, tokenizer, conversations, batch_size=batch_size)
        assert [trace.domain for trace in traces] == ["text", "code", "math"]
        for trace, own in zip(traces, conversations, strict=True):
            ids, weights = by_hand(model, tokenizer, own.messages)
            torch.testing.assert_close(torch.tensor(trace.weights), weights, atol=1e-5, rtol=1e-4)
            assert len(trace.tokens) == len(ids)
    assert weights.std(0).max() > 1e-3  # else a shift would not show
    assert "".join(traces[1].tokens) == f"def add(first, second): return first{END_MARK}lazy dog{END_MARK}"
    assert traces[1].prompt == "def\n\nUser"


def test_generated_answer_has_the_weights_it_was_made_with(fused):
    """A greedy answer traced afterwards must show the weights that `generate` mixed with, step by step without a cache."""
    model, tokenizer = fused
    messages = [{"role": "user", "content": "The quick brown fox"}]
    trace = trace_answer(model, tokenizer, messages, 8, domain="text")
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    prompt, weights = len(ids), []
    with torch.no_grad():
        for _ in range(8):
            output = model(torch.tensor([ids]), output_gate_weights=True)
            weights.append(output.gate_weights[0, -1])
            ids = [*ids, int(output.logits[0, -1].argmax())]
            if ids[-1] in model.generation_config.eos_token_id:
                break
    assert trace.tokens == token_texts(tokenizer, ids[prompt:], model.generation_config.eos_token_id)
    torch.testing.assert_close(torch.tensor(trace.weights), torch.stack(weights), atol=1e-5, rtol=1e-4)


def test_every_end_token_ends_an_answer(fused, monkeypatch):
    """Catches an answer that ends with another of the model's end tokens, as Llama 3 has several, shown as if it went on."""
    model, tokenizer = fused
    messages = [{"role": "user", "content": "The quick brown fox"}]
    monkeypatch.setattr(model.generation_config, "eos_token_id", None)
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=False)
    made = model.generate(prompt, max_new_tokens=8, do_sample=False)[0, prompt.shape[1] :].tolist()
    last = next(token for place, token in enumerate(made) if place and token not in made[:place])
    length = made.index(last) + 1
    for ends in (last, [tokenizer.eos_token_id, last]):
        monkeypatch.setattr(model.generation_config, "eos_token_id", ends)
        trace = trace_answer(model, tokenizer, messages, length)
        assert len(trace.tokens) == length and trace.tokens[-1] == END_MARK and END_MARK not in trace.tokens[:-1]


def test_end_that_is_no_token_is_one_line(fused, monkeypatch):
    """Catches a traceback from inside `generate` for a generation_config.json that somebody has edited."""
    model, tokenizer = fused
    monkeypatch.setattr(model.generation_config, "eos_token_id", "abc")
    with pytest.raises(UserError, match="its generation settings end an answer at 'abc'"):
        trace_answer(model, tokenizer, [{"role": "user", "content": "The quick brown fox"}], 4)


def test_answers_stay_within_the_positions(fused, monkeypatch):
    """Catches a prompt or an answer beyond what the model has positions for, which it has never learnt to read."""
    model, tokenizer = fused
    messages = [{"role": "user", "content": "The quick brown fox"}]
    prompt = len(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))
    monkeypatch.setattr(model.generation_config, "eos_token_id", None)
    monkeypatch.setattr(model.config, "max_position_embeddings", prompt + 3)
    assert len(trace_answer(model, tokenizer, messages, 8).tokens) == 3
    monkeypatch.setattr(model.config, "max_position_embeddings", prompt)
    with pytest.raises(UserError, match=f"the prompt has {prompt} tokens, but this model has {prompt} positions; shorten it"):
        trace_answer(model, tokenizer, messages, 8)


def test_labels(fused):
    """Labels may lack the end token only; any other length would shift every verdict after it."""
    model, tokenizer = fused
    own = conversation("sum", "42 dog", domain="mixed")
    count = len(trace_conversations(model, tokenizer, [own])[0].tokens)
    for length in (count - 1, count):
        (trace,) = trace_conversations(model, tokenizer, [own], labels=[["math"] * length])
        assert [trace.label(place) for place in range(count)] == ["math"] * length + [None] * (count - length)
    (trace,) = trace_conversations(model, tokenizer, [own], labels=[None])
    assert trace.label(0) == "mixed"
    for length in (count - 2, count + 1):
        with pytest.raises(ValueError, match=f"line 1: {length} labels for {count}"):
            trace_conversations(model, tokenizer, [own], labels=[["math"] * length])


def test_characters_of_several_tokens():
    """Bytes of one character must come out as that character once, not as replacement marks; nothing may be lost."""
    tokenizer = tiny_tokenizer()
    ids = tokenizer("say é€🙂 now").input_ids
    texts = token_texts(tokenizer, [*ids, tokenizer.eos_token_id], [tokenizer.eos_token_id])
    assert "".join(texts) == f"say é€🙂 now{END_MARK}"
    assert len(texts) == len(ids) + 1 and "" in texts
    broken = tokenizer("🙂").input_ids[:2]
    assert "".join(token_texts(tokenizer, [*broken, tokenizer.eos_token_id], [tokenizer.eos_token_id])) == f"\ufffd{END_MARK}"


def test_leading_spaces():
    """Each token's space belongs to it, also right after an end token: catches decoding token by token."""
    tokenizer = tiny_tokenizer()
    ids = tokenizer("The lazy dog").input_ids
    assert "".join(token_texts(tokenizer, [*ids, 2, *ids], [2])) == f"The lazy dog{END_MARK}The lazy dog"
