"""Everything ``generate`` can do, on the fused model: what the library's own generation tests ask of its models.

Every test runs with one template for all specialists and, where that means anything, with unlike templates (slots). The
reference is a loop over plain forward passes of the whole sequence, which has no cache and no state; that those are right
is shown against N separate models in test_modeling.py.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from transformers import (
    LlamaConfig,
    MistralConfig,
    MistralForCausalLM,
    StaticCache,
    StoppingCriteria,
    StoppingCriteriaList,
    pipeline,
)
from transformers.utils import is_hqq_available, is_optimum_quanto_available, output_capturing

from reference import END, VOCAB, Templates, fuse_by_hand, tiny_llama
from tiny import tiny_tokenizer
from ultrafuser.model.configuration_ultrafuser import UltraFuserConfig
from ultrafuser.model.modeling_ultrafuser import UltraFuserForCausalLM

UNLIKE = Templates(user=[[1, 2, 3, 4], [5], [6, 7]], answer=[[8], [9, 10, 11], [12, 13]])
NEVER = 10**6  # an end token that nothing generates
FREE = {"do_sample": False, "eos_token_id": NEVER, "pad_token_id": 0}


@dataclass
class Case:
    """A fused model with two prompts of unlike length, left-padded, and one alone."""

    model: UltraFuserForCausalLM
    rows: list[list[int]]

    def __post_init__(self) -> None:
        width = max(map(len, self.rows))
        self.ids = torch.tensor([[0] * (width - len(row)) + row for row in self.rows])
        self.mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in self.rows])
        self.one = torch.tensor([self.rows[0]])

    def generate(self, ids: torch.Tensor | None = None, **options: object) -> torch.Tensor:
        if ids is None:
            return self.model.generate(self.ids, attention_mask=self.mask, **(FREE | options))
        return self.model.generate(ids, attention_mask=torch.ones_like(ids), **(FREE | options))


def build(kind: str, first_seed: int = 0, **changes: object) -> UltraFuserForCausalLM:
    own = [tiny_llama(seed, **changes) for seed in range(first_seed, first_seed + 3)]
    return fuse_by_hand(own, UNLIKE if kind == "unlike" else None, seed=first_seed)


def rows_of(kind: str) -> list[list[int]]:
    conversations = [[[20, 21, 22], [30, 31], [23, 24]], [[25, 26]]]
    if kind == "unlike":
        return [UNLIKE.fused_ids(turns) for turns in conversations]
    return [[1, 20, 21, 22, 2, 30, 31, 23, 24, 2], [1, 25, 26]]


@pytest.fixture(scope="module", params=["alike", "unlike"])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(build(request.param), rows_of(request.param))


@pytest.fixture(scope="module")
def alike() -> Case:
    return Case(build("alike"), rows_of("alike"))


@pytest.fixture(scope="module")
def unlike() -> Case:
    return Case(build("unlike"), rows_of("unlike"))


@torch.no_grad()
def next_logits(model: UltraFuserForCausalLM, ids: torch.Tensor) -> torch.Tensor:
    return model(ids, use_cache=False).logits[:, -1]


def stepwise(
    model: UltraFuserForCausalLM, ids: torch.Tensor, steps: int, adjust: Callable[..., torch.Tensor] = lambda ids, logits: logits
) -> torch.Tensor:
    """Greedy continuation of one unpadded prompt (1, T) by whole forward passes."""
    for _ in range(steps):
        ids = torch.cat([ids, adjust(ids, next_logits(model, ids)).argmax(-1, keepdim=True)], dim=1)
    return ids


# Ways to choose tokens


@pytest.mark.parametrize("options", [{}, {"use_cache": False}, {"logits_to_keep": 0}], ids=["cache", "no-cache", "all-logits"])
def test_greedy_of_a_left_padded_batch(case, options):
    """Catches a mask, position or cache that is off by padding or by a step."""
    out = case.generate(max_new_tokens=8, **options)
    for row, got in zip(case.rows, out, strict=True):
        assert got[case.ids.shape[1] :].tolist() == stepwise(case.model, torch.tensor([row]), 8)[0, len(row) :].tolist()


def test_sampling_follows_the_distribution(case):
    """First sampled tokens occur as often as softmax says; slot tokens never do."""
    torch.manual_seed(0)
    out = case.generate(case.one, do_sample=True, top_k=0, num_return_sequences=4000, max_new_tokens=1)
    seen = torch.bincount(out[:, -1], minlength=case.model.config.vocab_size) / 4000
    expected = next_logits(case.model, case.one)[0].softmax(-1)
    assert (seen - expected).abs().sum() / 2 < 0.06  # total variation; sampling noise alone is about 0.03
    assert seen[VOCAB:].sum() == 0


@pytest.mark.parametrize("beams", [1, 3])
def test_sampling_does_not_depend_on_the_cache(case, beams):
    """The same seed gives the same samples with and without a cache, also when beams reorder it."""
    options = {"do_sample": True, "temperature": 0.8, "top_k": 20, "num_beams": beams, "num_return_sequences": beams}
    outputs = []
    for use_cache in (True, False):
        torch.manual_seed(1)
        outputs.append(case.generate(max_new_tokens=6, use_cache=use_cache, **options))
    assert torch.equal(*outputs)
    assert outputs[0].shape == (2 * beams, case.ids.shape[1] + 6)


def slow_beams(model: UltraFuserForCausalLM, prompt: list[int], beams: int, steps: int) -> list[list[int]]:
    """Beam search without end tokens: the ``beams`` likeliest extensions of the kept ones, every step."""
    kept = [(0.0, prompt)]
    for _ in range(steps):
        grown = []
        for score, ids in kept:
            logs = next_logits(model, torch.tensor([ids]))[0].log_softmax(-1)
            values, tokens = logs.topk(beams)
            grown += [(score + float(v), [*ids, int(t)]) for v, t in zip(values, tokens, strict=True)]
        kept = sorted(grown, reverse=True)[:beams]
    return [ids for _, ids in kept]


def test_beam_search(case):
    """All returned beams, in order, are those of a search by hand: catches a cache reordered wrongly."""
    out = case.generate(max_new_tokens=5, num_beams=3, num_return_sequences=3, return_dict_in_generate=True, output_scores=True)
    for i, row in enumerate(case.rows):
        got = out.sequences[3 * i : 3 * i + 3, case.ids.shape[1] :].tolist()
        assert got == [ids[len(row) :] for ids in slow_beams(case.model, row, 3, 5)]
        assert out.sequences_scores[3 * i : 3 * i + 3].diff().le(0).all()


@pytest.mark.parametrize("drafts", ["another", "itself", "prompt"])
def test_assisted_decoding(case, drafts):
    """Drafts, accepted or not, never change a greedy answer: catches a cache rolled back by the wrong number."""
    kind = "unlike" if case.model.config.hides_slots else "alike"
    options: dict[str, object] = {"prompt_lookup_num_tokens": 3}
    if drafts != "prompt":
        draft = build(kind, first_seed=7) if drafts == "another" else copy.deepcopy(case.model)
        draft.generation_config.num_assistant_tokens = 3
        draft.generation_config.num_assistant_tokens_schedule = "constant"
        options = {"assistant_model": draft}
    out = case.generate(case.one, max_new_tokens=12, **options)
    assert torch.equal(out, stepwise(case.model, case.one, 12))
    sampled = case.generate(case.one, max_new_tokens=5, **options, do_sample=True)
    assert sampled.shape == (1, case.one.shape[1] + 5)


def test_a_specialist_drafts_for_its_fused_model(alike):
    """An ordinary Llama of the same vocabulary can be the draft."""
    out = alike.generate(alike.one, max_new_tokens=12, assistant_model=tiny_llama(1))
    assert torch.equal(out, stepwise(alike.model, alike.one, 12))


# Processors and stopping


def test_repetition_penalty_and_forbidden_tokens(case):
    """Logits processors see the right ids and logits: equal to the same rules by hand, twice over a repeated token."""

    def adjust(ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        old = logits.gather(1, ids)
        logits = logits.scatter(1, ids, torch.where(old < 0, old * 1.5, old / 1.5))
        return logits.index_fill(1, torch.tensor([20, 33]), float("-inf"))

    out = case.generate(case.one, max_new_tokens=10, repetition_penalty=1.5, suppress_tokens=[20, 33])
    assert torch.equal(out, stepwise(case.model, case.one, 10, adjust))


def test_guidance_with_masked_tokens():
    """Classifier-free guidance subtracts log-probabilities: where those of masked tokens were -inf it answered with them."""
    model = build("alike")
    model.config.masked_token_ids = [3, 7]
    model.unpredictable_ids = model.make_unpredictable_ids()
    prompt, scale = torch.tensor([rows_of("alike")[0]]), 1.5

    def adjust(ids: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        without = next_logits(model, ids[:, prompt.shape[1] - 1 :]).log_softmax(-1)  # the prompt but for its last token is gone
        return (without + scale * (logits.log_softmax(-1) - without)).index_fill(1, torch.tensor([3, 7]), float("-inf"))

    out = Case(model, [prompt[0].tolist()]).generate(max_new_tokens=8, guidance_scale=scale)
    assert torch.equal(out, stepwise(model, prompt, 8, adjust))


def test_no_repeated_ngrams(case):
    """``no_repeat_ngram_size`` holds over the answer."""
    answer = case.generate(case.one, max_new_tokens=25, no_repeat_ngram_size=2)[0].tolist()
    pairs = list(zip(answer[case.one.shape[1] - 1 :], answer[case.one.shape[1] :], strict=False))
    assert len(pairs) == len(set(pairs)) == 25


def test_end_token_stops_a_row_and_pads_it(case):
    """A row that has ended is padded while the other goes on; min_new_tokens defers the end; lists of end tokens work."""
    width = case.ids.shape[1]
    free = case.generate(max_new_tokens=8)
    end = int(free[0, width + 2])
    out = case.generate(max_new_tokens=8, eos_token_id=[end, NEVER])
    for got, want in zip(out[:, width:].tolist(), free[:, width:].tolist(), strict=True):
        stop = want.index(end) + 1 if end in want else 8
        assert got == want[:stop] + [0] * (len(got) - stop)
    later = case.generate(max_new_tokens=8, eos_token_id=end, min_new_tokens=6)[:, width:]
    assert not (later[:, :6] == end).any()


def test_end_token_comes_from_the_configuration(case):
    """Without a word from the caller, generation ends at the configuration's own end token."""
    assert case.model.generation_config.eos_token_id == END
    assert case.model.generation_config.pad_token_id == 0


def test_custom_stopping_criterion_and_max_length(case):
    """A user's own criterion is asked every step; max_length counts the prompt."""

    class AfterThree(StoppingCriteria):
        def __call__(self, input_ids, scores, **kwargs):
            return torch.full((input_ids.shape[0],), input_ids.shape[1] >= case.ids.shape[1] + 3)

    assert (
        case.generate(max_new_tokens=9, stopping_criteria=StoppingCriteriaList([AfterThree()])).shape[1] == case.ids.shape[1] + 3
    )
    assert case.generate(max_length=case.ids.shape[1] + 4).shape[1] == case.ids.shape[1] + 4


# What comes back


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("beams", [1, 2])
def test_dictionary_outputs(case, use_cache, beams):
    """Lengths and shapes of scores, logits, attentions and hidden states; layers of specialist j are H_j wide, the last H."""
    eager = copy.deepcopy(case.model)
    eager.set_attn_implementation("eager")
    steps, width, config = 3, case.ids.shape[1], eager.config
    flags = ("output_scores", "output_logits", "output_attentions", "output_hidden_states", "return_dict_in_generate")
    out = Case(eager, case.rows).generate(
        max_new_tokens=steps, num_beams=beams, use_cache=use_cache, **dict.fromkeys(flags, True)
    )
    batch = 2 * beams
    assert [s.shape for s in out.scores] == [s.shape for s in out.logits] == [(batch, config.vocab_size)] * steps
    assert len(out.attentions) == len(out.hidden_states) == steps
    for step, (attentions, hidden) in enumerate(zip(out.attentions, out.hidden_states, strict=True)):
        queries = 1 if use_cache and step else width + step
        assert [a.shape for a in attentions] == [(batch, 4, queries, width + step)] * config.num_hidden_layers
        assert [h.shape[:2] for h in hidden] == [(batch, queries)] * (config.num_hidden_layers + 1)
        assert [h.shape[2] for h in hidden] == [32] * config.num_hidden_layers + [config.hidden_size]
    assert (out.past_key_values is None) is not use_cache
    if use_cache:
        assert out.past_key_values.get_seq_length() == width + steps - 1


@torch.no_grad()
def test_hidden_states_are_those_of_the_layers(alike):
    """The first specialist's embeddings, then every layer's output in flat order, the last replaced by the mixed output."""
    model, ids = alike.model, alike.one
    outputs: list[torch.Tensor] = []
    hooks = [layer.register_forward_hook(lambda _, args, output: outputs.append(output)) for layer in model.model.layers]
    out = model(ids, output_hidden_states=True)
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(out.hidden_states[0], model.model.embed_tokens(ids)[..., :32])
    for got, want in zip(out.hidden_states[1:-1], outputs[:-1], strict=True):
        torch.testing.assert_close(got, want)
    torch.testing.assert_close(model.lm_head(out.hidden_states[-1]), out.logits)


@torch.no_grad()
@pytest.mark.skipif(not hasattr(output_capturing, "selected_hidden_states"), reason="older releases give all states or none")
def test_chosen_hidden_states(alike):
    """Only the states asked for by index are kept, counted over the layers of all specialists."""
    whole = alike.model(alike.one, output_hidden_states=True).hidden_states
    chosen = alike.model(alike.one, output_hidden_states=[1, -2]).hidden_states
    assert [state is not None for state in chosen] == [j in (1, len(whole) - 2) for j in range(len(whole))]
    for got, want in zip(chosen, whole, strict=True):
        assert got is None or torch.equal(got, want)


def test_what_the_library_reads_of_the_class(alike):
    """Catches a module that is in both lists of what stays float32, and options of ``forward`` that the library cannot see."""
    model = alike.model
    assert not model._keep_in_fp32_modules & model._keep_in_fp32_modules_strict
    for one in (model, model.model):
        kwargs = inspect.signature(one.forward).parameters["kwargs"].annotation
        assert "output_attentions" in kwargs.__args__[0].__annotations__


@torch.no_grad()
def test_logits_to_keep(case):
    """Asking for the last logits, or for chosen ones, gives those of the whole."""
    whole = case.model(case.one).logits
    torch.testing.assert_close(case.model(case.one, logits_to_keep=2).logits, whole[:, -2:])
    torch.testing.assert_close(case.model(case.one, logits_to_keep=torch.tensor([0, 3])).logits, whole[:, [0, 3]])


# Caches


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
    for a, b in zip(out.past_key_values.layers, again.past_key_values.layers, strict=True):
        torch.testing.assert_close(a.keys, b.keys, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(a.values, b.values, atol=1e-5, rtol=1e-4)


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


def test_ids_that_are_missing_are_refused(unlike):
    """Going on from a cache with the new tokens alone cannot be right where slots were hidden: an error, not a guess."""
    first = unlike.generate(unlike.one, max_new_tokens=2, return_dict_in_generate=True)
    options = {"attention_mask": torch.ones_like(first.sequences), "past_key_values": first.past_key_values}
    with pytest.raises(ValueError, match="ids of all"):
        unlike.model.generate(first.sequences[:, -1:], max_new_tokens=2, **options)


# Ways to give the prompt


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


# The rest of the life of a model


def test_gradient_checkpointing(case):
    """Recomputing layers in the backward pass gives the same gradients."""
    gradients = []
    for checkpointing in (False, True):
        model = copy.deepcopy(case.model).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        labels = case.ids.masked_fill((case.mask == 0) | (case.ids >= VOCAB), -100)
        model(case.ids, attention_mask=case.mask, labels=labels, use_cache=False).loss.backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_save_and_load(case, tmp_path):
    """What is loaded answers as what was saved, buffers and generation settings included."""
    case.model.save_pretrained(tmp_path)
    loaded = UltraFuserForCausalLM.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(case.one).logits, case.model(case.one).logits)
    assert torch.equal(Case(loaded, case.rows).generate(max_new_tokens=6), case.generate(max_new_tokens=6))
    assert loaded.generation_config.eos_token_id == END


@torch.no_grad()
def test_resized_vocabulary(case, tmp_path):
    """Added tokens can be fed and leave old logits alone; they can be predicted where the vocabulary has no slots."""
    model = copy.deepcopy(case.model)
    old = model.config.vocab_size
    model.resize_token_embeddings(old + 3, mean_resizing=False)
    model(torch.cat([case.one, torch.tensor([[old + 2]])], dim=1))
    for current in (model, _reloaded(model, tmp_path)):
        logits = current(case.one).logits
        assert logits.shape[-1] == current.config.vocab_size == old + 3
        torch.testing.assert_close(logits[..., :old], case.model(case.one).logits)
        assert (logits.softmax(-1)[..., old:] > 0).all().item() is (old == VOCAB)
        if old == VOCAB:
            label = torch.full_like(case.one, old + 1)
            expected = torch.nn.functional.cross_entropy(logits[0, :-1], label[0, 1:])
            torch.testing.assert_close(current(case.one, labels=label).loss, expected)


def test_vocabulary_smaller_than_its_slots(unlike):
    """A configuration cut to fewer ids than the shared tokens has no slots left to hide, and still makes a model."""
    config = copy.deepcopy(unlike.model.config)
    config.vocab_size = 4
    model = UltraFuserForCausalLM(config)
    assert not config.hides_slots and model.model.visible_table.shape == (4, 3) and model.model.visible_table.all()
    assert model(torch.tensor([[1, 2, 3]])).logits.shape == (1, 3, 4)


def _reloaded(model: UltraFuserForCausalLM, path) -> UltraFuserForCausalLM:
    model.save_pretrained(path)
    return UltraFuserForCausalLM.from_pretrained(path)


def test_text_generation_pipeline():
    """``pipeline("text-generation")`` takes text, a batch of texts and a chat."""
    tokenizer = tiny_tokenizer("chatml")
    own = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4
    ).to_dict()
    torch.manual_seed(0)
    config = UltraFuserConfig(specialists=[own, own], gate_hidden_size=8, pad_token_id=tokenizer.pad_token_id, eos_token_id=NEVER)
    write = pipeline("text-generation", model=UltraFuserForCausalLM(config).eval(), tokenizer=tokenizer, batch_size=2)
    options = {"max_new_tokens": 4, "do_sample": False}
    alone = write("The quick", **options)[0]["generated_text"]
    assert alone.startswith("The quick") and len(alone) > len("The quick")
    assert write(["The quick", "What is the sum of 12 and"], **options)[0][0]["generated_text"] == alone
    chat = write([{"role": "user", "content": "The sum?"}], **options)[0]["generated_text"]
    assert [message["role"] for message in chat] == ["user", "assistant"]


@pytest.mark.slow
def test_compiled_forward_with_a_static_cache(case):
    """torch.compile finds one whole graph, and its answers are those of plain code."""
    torch.compiler.reset()
    model = copy.deepcopy(case.model)
    compiled = Case(model, case.rows)
    model.forward = torch.compile(model.forward, fullgraph=True, backend="inductor")
    static = {"cache_implementation": "static", "disable_compile": True}
    assert torch.equal(compiled.generate(max_new_tokens=6, **static), case.generate(max_new_tokens=6))
