"""Caches of every kind under ``generate``: what the library's own generation tests ask of them, on the fused model."""

from __future__ import annotations

import copy
import functools
import inspect

import pytest
import torch
import transformers
from generation_cases import FREE, UNLIKE, Case
from packaging.version import Version
from transformers import LlamaModel, StaticCache
from transformers.cache_utils import Cache
from transformers.utils import is_hqq_available, is_optimum_quanto_available

from reference import Templates, fuse_by_hand, tiny_llama
from ultrafuser.model import cache_ultrafuser
from ultrafuser.model.modeling_ultrafuser import UltraFuserForCausalLM, UltraFuserModel


@pytest.mark.parametrize("cache", ["static", "hybrid", "offloaded", "offloaded_static", "quantized"])
def test_cache_implementations(case, cache):
    """Every kind of cache gives the answer of the plain one."""
    if "offloaded" in cache and not torch.cuda.is_available():
        pytest.skip("offloading needs an accelerator to offload from")
    options: dict[str, object] = {"cache_implementation": cache, "disable_compile": True}
    if cache == "quantized":
        if not (is_hqq_available() or is_optimum_quanto_available()):
            pytest.skip("needs hqq or optimum-quanto")
        backend = "hqq" if is_hqq_available() else "quanto"
        options["cache_config"] = {"backend": backend, "nbits": 8 if backend == "hqq" else 4, "residual_length": 128}
    assert torch.equal(case.generate(max_new_tokens=8, **options), case.generate(max_new_tokens=8))


def test_steps_look_alike_to_a_compiler(case):
    """With a static cache all steps differ in values only: strides that grew with the text made every step compile anew."""
    model, seen = copy.deepcopy(case.model), []
    forward = model.forward

    @functools.wraps(forward)
    def spy(**inputs):
        tensors = inputs | (inputs["attention_mask"] if isinstance(inputs["attention_mask"], dict) else {})
        seen.append({name: (t.shape, t.stride()) for name, t in tensors.items() if torch.is_tensor(t)})
        return forward(**inputs)

    model.forward = spy
    Case(model, case.rows).generate(max_new_tokens=5, cache_implementation="static", disable_compile=True)
    assert len(seen) == 5 and all(step == seen[1] for step in seen[2:])


def test_roomy_static_cache_of_the_users_own(case):
    """A static cache longer than needed, and used again after a reset."""
    cache = StaticCache(config=case.model.config, max_cache_len=64)
    expected = case.generate(max_new_tokens=6)
    for _ in range(2):
        assert torch.equal(case.generate(max_new_tokens=6, past_key_values=cache, disable_compile=True), expected)
        cache.reset()


@pytest.mark.parametrize("more", [[], [[40, 41]]], ids=["same-turn", "next-turn"])
def test_generate_goes_on_from_a_returned_cache(case, more):
    """A chat keeps its cache: going on from it equals starting anew, also when a turn with hidden slots was added."""
    first = case.generate(case.one, max_new_tokens=4, return_dict_in_generate=True)
    added = UNLIKE.fused_ids(more) if case.model.config.hides_slots else [token for turn in more for token in turn]
    ids = torch.cat([first.sequences, torch.tensor([added], dtype=torch.long)], dim=1)
    out = case.generate(ids, max_new_tokens=5, past_key_values=first.past_key_values, return_dict_in_generate=True)
    again = case.generate(ids, max_new_tokens=5, return_dict_in_generate=True)
    assert torch.equal(out.sequences, again.sequences)
    check_same(out.past_key_values, again.past_key_values)


def check_same(cache: Cache, other: Cache) -> None:
    for a, b in zip(cache.layers, other.layers, strict=True):
        torch.testing.assert_close(a.keys, b.keys, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(a.values, b.values, atol=1e-5, rtol=1e-4)


def test_generate_goes_on_from_embeddings_and_a_returned_cache(case):
    """As above where prompt and answer so far come as embeddings, which have the whole text and its masks known."""
    embed, dictionary = case.model.get_input_embeddings(), {"return_dict_in_generate": True}
    embeds = embed(case.one)
    whole = case.model.generate(inputs_embeds=embeds, max_new_tokens=5, **FREE, **dictionary)
    first = case.model.generate(inputs_embeds=embeds, max_new_tokens=3, **FREE, **dictionary)
    longer = torch.cat([embeds, embed(first.sequences)], dim=1)
    cache = {"past_key_values": first.past_key_values}
    rest = case.model.generate(inputs_embeds=longer, max_new_tokens=2, **cache, **FREE, **dictionary)
    assert torch.equal(torch.cat([first.sequences, rest.sequences], dim=1), whole.sequences)
    check_same(rest.past_key_values, whole.past_key_values)


@pytest.mark.parametrize("embedded", [False, True], ids=["ids", "embeddings"])
def test_static_cache_has_room_for_the_text_and_no_more(case, embedded):
    """Its length is counted from the prompt as it was given; the last token needs none."""
    options = FREE | {"cache_implementation": "static", "disable_compile": True, "return_dict_in_generate": True}
    prompt = {"inputs_embeds": case.model.get_input_embeddings()(case.ids)} if embedded else {"input_ids": case.ids}
    out = case.model.generate(**prompt, attention_mask=case.mask, max_new_tokens=10, **options)
    shapes = [tensor.shape for layer in out.past_key_values.layers for tensor in (layer.keys, layer.values)]
    assert shapes == [(2, 2, case.ids.shape[1] + 9, 8)] * len(shapes)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(case, dtype):
    """A static cache, and eager attention, give the scores of the plain run up to the first token that they do not share."""
    options = {"max_new_tokens": 6, "return_dict_in_generate": True, "output_scores": True}
    model = copy.deepcopy(case.model).to(dtype)
    half = Case(model, case.rows)
    plain = half.generate(**options)
    static = half.generate(**options, cache_implementation="static", disable_compile=True)
    model.set_attn_implementation("eager")
    tolerance = 8 * torch.finfo(dtype).eps
    for other in (static, half.generate(**options)):
        for row in range(2):
            for step, (a, b) in enumerate(zip(plain.scores, other.scores, strict=True)):
                torch.testing.assert_close(a[row], b[row], atol=tolerance, rtol=tolerance)
                if plain.sequences[row, case.ids.shape[1] + step] != other.sequences[row, case.ids.shape[1] + step]:
                    break


@pytest.mark.parametrize("of", [UltraFuserModel, UltraFuserForCausalLM])
def test_the_cache_bears_the_name_of_the_release(alike, of):
    """Under another name ``generate`` would hand over a cache that nothing reads, and answer from the last token alone."""
    names = {"cache", "past_key_values"}
    theirs, ours = (names & set(inspect.signature(kind.forward).parameters) for kind in (LlamaModel, of))
    out = (alike.model if of is UltraFuserForCausalLM else alike.model.model)(alike.one, use_cache=True)
    assert ours == theirs == {name for name, value in vars(out).items() if isinstance(value, Cache)}
    assert theirs < set(alike.model.config.keys_to_ignore_at_inference)  # or a trainer would gather it with the predictions


def test_both_names_of_a_cache_are_taken_since_it_was_renamed(monkeypatch):
    """The new one is shown and passed on; the former one too, with the library's warning."""
    monkeypatch.setattr(cache_ultrafuser, "CACHE", "cache")
    forward = cache_ultrafuser.takes_cache(lambda ids, past_key_values=None: (ids, past_key_values))
    assert list(inspect.signature(forward).parameters) == ["ids", "cache"]
    assert forward(1, cache=2) == forward(1, 2) == (1, 2)
    with pytest.warns(FutureWarning, match="`past_key_values` is deprecated"):
        assert forward(1, past_key_values=2) == (1, 2)


@torch.no_grad()
def test_cropped_cache(case):
    """Taking back the last tokens (a negative count) leaves a cache as if they had never been."""
    model, ids = case.model, case.one
    visible = {"attention_mask": model.model.visibility(ids, None)} if model.config.hides_slots else {}
    cache = model(ids, use_cache=True).past_key_values
    cache.crop(-5)
    assert cache.get_seq_length() == ids.shape[1] - 5
    again = model(ids[:, -5:], past_key_values=cache, **visible).logits
    torch.testing.assert_close(again, model(ids).logits[:, -5:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_chunked_prefill(case, chunk):
    """A prompt read in pieces gives the same answer, also where a piece ends among hidden slots."""
    assert torch.equal(case.generate(max_new_tokens=6, prefill_chunk_size=chunk), case.generate(max_new_tokens=6))


NOTHING_BEFORE_THE_ANSWER = Templates(user=[[1], [2]], answer=[[], [9, 10, 11, 12]])


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 7])
def test_chunked_prefill_where_a_template_has_nothing_before_the_answer(chunk):
    """Catches a last chunk that is all hidden from a specialist, whose last visible state is then another."""
    templates = NOTHING_BEFORE_THE_ANSWER
    case = Case(fuse_by_hand([tiny_llama(0), tiny_llama(1)], templates), [templates.fused_ids([[20, 21, 22]])] * 2)
    options = {"max_new_tokens": 2, "return_dict_in_generate": True, "output_logits": True}
    whole, pieces = case.generate(**options), case.generate(prefill_chunk_size=chunk, **options)
    torch.testing.assert_close(pieces.logits, whole.logits, atol=1e-5, rtol=1e-4)
    if Version(transformers.__version__) < Version("5.21"):
        return  # there it splits no ids, where the prompt is embeddings only
    embeds = {"inputs_embeds": case.model.get_input_embeddings()(case.one), "prefill_chunk_size": chunk}
    said = case.model.generate(**embeds, attention_mask=torch.ones_like(case.one), **options, **FREE)
    torch.testing.assert_close([one[:1] for one in pieces.logits], list(said.logits), atol=1e-5, rtol=1e-4)


def test_a_prefix_that_ends_before_hidden_slots_is_refused():
    """Catches a cached prefix whose last visible state is not in the cache: an error, not a guess; a longer rest is answered."""
    templates = NOTHING_BEFORE_THE_ANSWER
    model, ids = fuse_by_hand([tiny_llama(0), tiny_llama(1)], templates), torch.tensor([templates.fused_ids([[20, 21, 22]])])
    whole = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=2, **FREE)
    for rest in range(1, 7):
        cache = model(ids[:, :-rest], use_cache=True).past_key_values
        options = {"attention_mask": torch.ones_like(ids), "past_key_values": cache, "max_new_tokens": 2}
        if rest > 4:
            assert torch.equal(model.generate(ids, **options, **FREE), whole)
        else:
            with pytest.raises(ValueError, match="must end before the last 5 tokens"):
                model.generate(ids, **options, **FREE)


@pytest.mark.parametrize("chunk", [None, 2])
def test_ids_that_are_missing_are_refused(unlike, chunk):
    """Going on from a cache with the new tokens alone cannot be right where slots were hidden: an error, not a guess."""
    first = unlike.generate(unlike.one, max_new_tokens=2, return_dict_in_generate=True)
    options = {"attention_mask": torch.ones_like(first.sequences), "past_key_values": first.past_key_values}
    with pytest.raises(ValueError, match="ids of all"):
        unlike.model.generate(first.sequences[:, -1:], max_new_tokens=2, prefill_chunk_size=chunk, **options)
