"""Batched answers against one prompt at a time and stepwise argmax without a cache; held-out loss against a plain loop."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tiny import tiny_specialist, tiny_tokenizer
from ultrafuser.data.conversations import Conversation
from ultrafuser.errors import UserError
from ultrafuser.evaluate.answers import generate_answers
from ultrafuser.evaluate.heldout import heldout_loss
from ultrafuser.model.fuse import fuse

WORDS = ["sum", "The quick brown fox jumps over", "add(first, second)", "lazy dog", "What is 12 and 30?"]
PROMPTS = [[{"role": "user", "content": words}] for words in WORDS]


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer("chatml")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return AutoModelForCausalLM.from_pretrained(tiny_specialist(tmp_path_factory.mktemp("one"), seed=3, template="chatml"))


@torch.no_grad()
def stepwise(model, tokenizer, words, ends, steps):
    """The answer by argmax over the whole text at every step."""
    ids = tokenizer(f"<|im_start|>user\n{words}<|im_end|>\n<|im_start|>assistant\n").input_ids
    prompt = len(ids)
    for _ in range(steps):
        best = int(model(torch.tensor([ids])).logits[0, -1].argmax())
        if best in ends:
            break
        ids.append(best)
    return tokenizer.decode(ids[prompt:], skip_special_tokens=True).strip()


def test_answers_in_order(model, tokenizer):
    """Catches wrong padding side or mask, answers in batch order instead of the prompts', and prompts left in the answers."""
    expected = [stepwise(model, tokenizer, words, [tokenizer.eos_token_id], 12) for words in WORDS]
    assert len(set(expected)) == len(expected)
    for batch_size in (1, 2, 8):
        assert generate_answers(model, tokenizer, PROMPTS, max_new_tokens=12, batch_size=batch_size, progress=False) == expected


def test_stops_at_every_end_of_the_generation_config(model, tokenizer, monkeypatch):
    """An end token that is not special in the tokenizer must stop the answer and not be in it, nor the padding after it."""
    first = tokenizer.encode(stepwise(model, tokenizer, WORDS[1], [], 12))
    stop = first[4]
    monkeypatch.setattr(model.generation_config, "eos_token_id", [tokenizer.eos_token_id, stop])
    monkeypatch.setattr(model.generation_config, "pad_token_id", None)
    expected = [stepwise(model, tokenizer, words, [tokenizer.eos_token_id, stop], 12) for words in WORDS]
    assert generate_answers(model, tokenizer, PROMPTS, max_new_tokens=12, batch_size=3, progress=False) == expected


def test_greedy_whatever_the_model_ships(model, tokenizer, monkeypatch):
    """Models ship settings for sampling, beams, and padding that is no token; scores must not depend on them, nor change them."""
    plain = generate_answers(model, tokenizer, PROMPTS, max_new_tokens=8, progress=False)
    shipped = {"do_sample": True, "temperature": 5.0, "top_p": 0.9, "num_beams": 3, "num_return_sequences": 2}
    for name, value in (shipped | {"pad_token_id": -1, "stop_strings": ["never said"]}).items():
        monkeypatch.setattr(model.generation_config, name, value)
    assert generate_answers(model, tokenizer, PROMPTS, max_new_tokens=8, progress=False) == plain
    assert model.generation_config.do_sample is True


def test_no_template(model):
    """A tokenizer without a chat template is the user's mistake: one line, no traceback."""
    bare = tiny_tokenizer()
    bare.chat_template = None
    with pytest.raises(UserError, match="template"):
        generate_answers(model, bare, PROMPTS, max_new_tokens=2, progress=False)


def conversation(domain, question, answer):
    return Conversation(domain, [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], "here")


@torch.no_grad()
def answer_losses(model, tokenizer, question, answer):
    """Negative log-likelihoods of the answer's tokens and its end token, one position at a time."""
    prompt = tokenizer(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n").input_ids
    ids = prompt + tokenizer(answer + "<|im_end|>").input_ids
    logits = model(torch.tensor([ids])).logits[0]
    return [-float(torch.log_softmax(logits[t - 1], -1)[ids[t]]) for t in range(len(prompt), len(ids))]


def test_heldout_loss(model, tokenizer):
    """Catches losses on prompts or padding, a lost end token, an off-by-one shift, means of means, and mixed-up domains."""
    pairs = [
        ("text", WORDS[1], "The lazy dog."),
        ("math", WORDS[4], "The sum is 42."),
        ("text", "User", "quick"),
        ("math", "12", "30"),
    ]
    pairs += [("text", WORDS[0], "def add(first, second): return 12")]
    losses = heldout_loss(model, tokenizer, [conversation(*pair) for pair in pairs], batch_size=2, progress=False)
    assert list(losses) == ["text", "math"]
    for domain, found in losses.items():
        own = [answer_losses(model, tokenizer, question, answer) for name, question, answer in pairs if name == domain]
        tokens = sum(map(len, own))
        mean = sum(map(sum, own)) / tokens
        spread = sum((sum(one) - mean * len(one)) ** 2 for one in own) * len(own) / (len(own) - 1)
        assert found == (pytest.approx(mean, rel=1e-5), pytest.approx(math.sqrt(spread) / tokens, rel=1e-4), tokens)
        assert found.interval().value == found.mean


@torch.no_grad()
def test_fused_model_with_unlike_templates(tmp_path):
    """Left padding over slots that some specialists do not see must not change answers; the loss skips the slots, too."""
    own = [tiny_specialist(tmp_path / name, seed=j, template=name) for j, name in enumerate(("user", "inst", "chatml"))]
    path = fuse(own, tmp_path / "out")
    fused, tokenizer = AutoModelForCausalLM.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)
    expected = []
    for messages in PROMPTS:
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        answer = []
        while (
            len(answer) < 8
            and (best := int(fused(torch.tensor([ids + answer])).logits[0, -1].argmax())) != tokenizer.eos_token_id
        ):
            answer.append(best)
        expected.append(tokenizer.decode(answer, skip_special_tokens=True).strip())
    assert generate_answers(fused, tokenizer, PROMPTS, max_new_tokens=8, batch_size=5, progress=False) == expected
    together = heldout_loss(fused, tokenizer, [conversation("text", words, "lazy dog") for words in WORDS], progress=False)
    alone = [heldout_loss(fused, tokenizer, [conversation("text", words, "lazy dog")], progress=False) for words in WORDS]
    assert together["text"].mean == pytest.approx(sum(one["text"].mean for one in alone) / len(WORDS), rel=1e-5)
    assert math.isfinite(together["text"].mean) and math.isnan(alone[0]["text"].standard_error)
