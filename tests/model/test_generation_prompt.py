"""Ways to give ``generate`` its prompt: ids, embeddings, masks and positions, as in the library's own generation tests."""

from __future__ import annotations

import copy

import pytest
import torch
from generation_cases import FREE, Case, next_logits, rows_of, stepwise
from transformers import MistralConfig, MistralForCausalLM

from reference import VOCAB, fuse_by_hand, tiny_llama


@pytest.mark.parametrize("beams", [1, 2])
def test_prompt_as_embeddings(case, beams):
    """inputs_embeds with or without ids answers as the ids do, slots included; other embeddings answer otherwise."""
    options = FREE | {"max_new_tokens": 6, "num_beams": beams, "attention_mask": case.mask}
    expected = case.generate(max_new_tokens=6, num_beams=beams)
    embeds = case.model.get_input_embeddings()(case.ids)
    width = case.ids.shape[1]
    assert torch.equal(case.model.generate(case.ids, inputs_embeds=embeds, **options), expected)
    assert torch.equal(case.model.generate(inputs_embeds=embeds, **options), expected[:, width:])
    static = {"cache_implementation": "static", "disable_compile": True}
    assert torch.equal(case.model.generate(inputs_embeds=embeds, **options, **static), expected[:, width:])
    assert not torch.equal(case.model.generate(inputs_embeds=torch.randn_like(embeds), **options), expected[:, width:])


@torch.no_grad()
def test_embeddings_of_slots_and_of_nothing(unlike):
    """A hidden slot is known by its embedding, at every place; an embedding that is no token's is seen by all specialists."""
    embed = unlike.model.get_input_embeddings()
    got = unlike.model(inputs_embeds=embed(unlike.ids), attention_mask=unlike.mask).logits
    torch.testing.assert_close(got, unlike.model(unlike.ids, attention_mask=unlike.mask).logits)
    soft = torch.randn(1, 3, unlike.model.config.hidden_size)
    prompt = torch.cat([soft, embed(unlike.one)], dim=1)  # a soft prompt, as prompt tuning puts it first
    visible = torch.cat([torch.ones(3, 1, 3, dtype=torch.bool), unlike.model.model.visibility(unlike.one, None)], dim=-1)
    got = unlike.model(inputs_embeds=prompt).logits
    torch.testing.assert_close(got, unlike.model(inputs_embeds=prompt, attention_mask=visible).logits)
    assert not torch.allclose(got[:, 3:], unlike.model(unlike.one).logits)


def test_embeddings_with_a_window_in_a_static_cache():
    """Windows make masks of their own for a static cache, also where the prompt came as embeddings."""
    shape = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 1, "num_attention_heads": 4}
    windowed = MistralForCausalLM(MistralConfig(**shape, num_key_value_heads=2, sliding_window=4, initializer_range=0.15))
    case = Case(fuse_by_hand([windowed.eval(), tiny_llama(1)]), rows_of("alike"))
    embeds = case.model.get_input_embeddings()(case.ids)
    static = {"cache_implementation": "static", "disable_compile": True, "max_new_tokens": 6, "attention_mask": case.mask}
    expected = case.generate(max_new_tokens=6)[:, case.ids.shape[1] :]
    assert torch.equal(case.model.generate(inputs_embeds=embeds, **FREE, **static), expected)


@torch.no_grad()
def test_explicit_positions(alike, unlike):
    """Positions the caller gives are used: the derived ones change nothing, others change the logits."""
    length = alike.one.shape[1]
    derived = torch.arange(length)[None]
    plain = alike.model(alike.one).logits
    torch.testing.assert_close(alike.model(alike.one, position_ids=derived).logits, plain)
    assert not torch.allclose(alike.model(alike.one, position_ids=derived * 2).logits, plain)
    generated = alike.generate(alike.one, max_new_tokens=5)
    assert torch.equal(alike.generate(alike.one, max_new_tokens=5, position_ids=derived), generated)
    visible = unlike.model.model.visibility(unlike.one, None)
    torch.testing.assert_close(unlike.model(unlike.one, attention_mask=visible).logits, unlike.model(unlike.one).logits)


@torch.no_grad()
def test_sdpa_equals_eager(case):
    """The attention implementations agree on a padded batch, logits and answers."""
    eager = copy.deepcopy(case.model)
    eager.set_attn_implementation("eager")
    started = case.model.model.visibility(case.ids, case.mask).cummax(dim=-1).values.all(0)  # a hidden first slot has no state
    real = case.mask.bool() & started
    got = eager(case.ids, attention_mask=case.mask).logits[real]
    torch.testing.assert_close(got, case.model(case.ids, attention_mask=case.mask).logits[real], atol=1e-5, rtol=1e-4)
    assert torch.equal(Case(eager, case.rows).generate(max_new_tokens=8), case.generate(max_new_tokens=8))


def test_no_prompt_at_all(case):
    """Then the text begins with the token that begins texts."""
    assert torch.equal(
        case.model.generate(bos_token_id=1, max_new_tokens=5, **FREE), stepwise(case.model, torch.tensor([[1]]), 5)
    )


@torch.no_grad()
def test_padding_on_the_left_changes_nothing(case):
    """Thirty-two tokens of padding, with the positions that the library counts around them, leave the logits alone."""
    ids = torch.cat([torch.zeros(1, 32, dtype=torch.long), case.one], dim=1)
    mask = (torch.arange(ids.shape[1]) >= 32).long()[None]
    logits = case.model(ids, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)).logits
    torch.testing.assert_close(logits[:, -1], next_logits(case.model, case.one), atol=1e-5, rtol=1e-4)


def test_positions_of_a_padded_batch(case):
    """Given as the library counts them they change no answer, and are counted on from."""
    positions = (case.mask.cumsum(-1) - 1).masked_fill(case.mask == 0, 1)
    assert torch.equal(case.generate(max_new_tokens=5, position_ids=positions), case.generate(max_new_tokens=5))


def test_inputs_of_the_users_own_are_passed_on(case):
    """What the library does not know reaches ``forward`` by way of ``prepare_inputs_for_generation``."""
    own = {"output_attentions": True, "custom": "text", "number": 42}
    inputs = case.model.prepare_inputs_for_generation(case.ids, attention_mask=case.mask, **own)
    assert inputs["input_ids"].shape == case.ids.shape
    assert own.items() <= {name: value for name, value in inputs.items() if name in own}.items()


@torch.no_grad()
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_rows_packed_into_one(alike, implementation):
    """Positions that begin anew say where a row ends: no row sees the one before it."""
    model = copy.deepcopy(alike.model)
    model.set_attn_implementation(implementation)
    positions = torch.cat([torch.arange(len(row)) for row in alike.rows])[None]
    ids = torch.tensor([[token for row in alike.rows for token in row]])
    packed = model(ids, position_ids=positions, use_cache=False).logits
    apart = torch.cat([alike.model(torch.tensor([row])).logits for row in alike.rows], dim=1)
    torch.testing.assert_close(packed, apart, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_ready_made_mask(alike):
    """A four-dimensional mask stays as it is: three last tokens that see a common text but not each other are three texts."""
    ends, text = [20, 33, 41], alike.rows[0]
    length = len(text) + 3
    sees = torch.ones(length, length).tril()
    sees[-3:, -3:] = torch.eye(3)
    mask = (1 - sees)[None, None] * torch.finfo(torch.float32).min
    positions = torch.tensor([[*range(len(text)), *[len(text)] * 3]])
    together = alike.model(torch.tensor([text + ends]), attention_mask=mask, position_ids=positions).logits
    apart = torch.cat([next_logits(alike.model, torch.tensor([[*text, end]])) for end in ends])
    torch.testing.assert_close(together[0, -3:], apart, atol=1e-5, rtol=1e-4)
