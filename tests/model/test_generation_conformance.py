"""Everything ``generate`` can do, on the fused model: what the library's own generation tests ask of its models.

Every test runs with one template for all specialists and, where that means anything, with unlike templates (slots). The
reference is a loop over plain forward passes of the whole sequence. Caches and prompts have files of their own,
test_generation_cache.py and test_generation_prompt.py.
"""

from __future__ import annotations

import copy
import inspect

import pytest
import torch
from generation_cases import NEVER, Case, build, next_logits, rows_of, stepwise
from transformers import AutoModelForCausalLM, LlamaConfig, StoppingCriteria, StoppingCriteriaList, pipeline
from transformers.generation import CompileConfig
from transformers.utils import output_capturing

from reference import END, VOCAB, Templates, fuse_by_hand, tiny_llama
from tiny import tiny_tokenizer
from ultrafuser.model.configuration_ultrafuser import UltraFuserConfig
from ultrafuser.model.modeling_ultrafuser import UltraFuserForCausalLM

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


def draft_options(case: Case, drafts: str) -> dict[str, object]:
    """Drafts of three tokens from another fused model, from the model itself, or from the text so far."""
    if drafts == "prompt":
        return {"prompt_lookup_num_tokens": 3}
    kind = "unlike" if case.model.config.hides_slots else "alike"
    draft = build(kind, first_seed=7) if drafts == "another" else copy.deepcopy(case.model)
    draft.generation_config.num_assistant_tokens = 3
    draft.generation_config.num_assistant_tokens_schedule = "constant"
    return {"assistant_model": draft}


@pytest.mark.parametrize("drafts", ["another", "itself", "prompt"])
def test_assisted_decoding(case, drafts):
    """Drafts, accepted or not, never change a greedy answer: catches a cache rolled back by the wrong number."""
    options = draft_options(case, drafts)
    out = case.generate(case.one, max_new_tokens=12, **options)
    assert torch.equal(out, stepwise(case.model, case.one, 12))
    sampled = case.generate(case.one, max_new_tokens=5, **options, do_sample=True)
    assert sampled.shape == (1, case.one.shape[1] + 5)


@pytest.mark.parametrize("drafts", ["itself", "prompt"])
def test_drafts_stop_at_the_end_token(case, drafts):
    """What was drafted past the end of an answer is dropped, also where the prompt goes on after such a token."""
    answer = stepwise(case.model, case.one, 12)[0, case.one.shape[1] :].tolist()
    end = answer[2]
    prompt = torch.cat([torch.tensor([[case.one[0, -1], end, 21]]), case.one], dim=1)
    for ids in (case.one, prompt):
        free = stepwise(case.model, ids, 12)[0].tolist()
        stop = free.index(end, ids.shape[1]) + 1 if end in free[ids.shape[1] :] else len(free)
        out = case.generate(ids, max_new_tokens=12, eos_token_id=end, **draft_options(case, drafts))
        assert out[0].tolist() == free[:stop]


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


EVERYTHING = dict.fromkeys(
    ("output_scores", "output_logits", "output_attentions", "output_hidden_states", "return_dict_in_generate"), True
)


def in_eager(case: Case) -> Case:
    """The same with the one attention implementation that can give its weights back."""
    eager = copy.deepcopy(case.model)
    eager.set_attn_implementation("eager")
    return Case(eager, case.rows)


def check_everything(out, config: UltraFuserConfig, batch: int, width: int, steps: int, keys: int = 0) -> None:
    """Shapes of all that can be asked for; layers of specialist j are H_j wide, the last H. ``keys``: of a static cache."""
    assert [s.shape for s in out.scores] == [s.shape for s in out.logits] == [(batch, config.vocab_size)] * steps
    assert len(out.attentions) == len(out.hidden_states) == steps
    for step, (attentions, hidden) in enumerate(zip(out.attentions, out.hidden_states, strict=True)):
        queries = 1 if out.past_key_values is not None and step else width + step
        assert [a.shape for a in attentions] == [(batch, 4, queries, keys or width + step)] * config.num_hidden_layers
        assert [h.shape[:2] for h in hidden] == [(batch, queries)] * (config.num_hidden_layers + 1)
        assert [h.shape[2] for h in hidden] == [32] * config.num_hidden_layers + [config.hidden_size]
    if out.past_key_values is not None:
        shapes = [tensor.shape for layer in out.past_key_values.layers for tensor in (layer.keys, layer.values)]
        assert shapes == [(batch, 2, width + steps - 1, 8)] * 2 * config.num_hidden_layers


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("sample", [False, True])
def test_dictionary_outputs(case, use_cache, beams, sample):
    """Everything has its length and shape, whichever way the tokens are chosen."""
    each = 2 if sample or beams > 1 else 1  # answers to a prompt that are at work at a time
    options = {"num_beams": beams, "do_sample": sample, "num_return_sequences": each if beams == 1 else 1}
    out = in_eager(case).generate(max_new_tokens=3, use_cache=use_cache, **options, **EVERYTHING)
    assert (out.past_key_values is None) is not use_cache
    check_everything(out, case.model.config, batch=2 * each, width=case.ids.shape[1], steps=3)


@pytest.mark.parametrize("drafts", ["itself", "prompt"])
@pytest.mark.parametrize("sample", [False, True])
def test_dictionary_outputs_with_drafts(case, drafts, sample):
    """Where several tokens come of one pass, what belongs to each is cut out of it: as if they had come one by one."""
    eager = in_eager(case)
    out = eager.generate(case.one, max_new_tokens=5, do_sample=sample, **draft_options(eager, drafts), **EVERYTHING)
    check_everything(out, case.model.config, batch=1, width=case.one.shape[1], steps=5)


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
    assert any("GenerationMixin" in base.__name__ for base in type(model).__bases__)
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


@pytest.mark.parametrize("width", [32, 48], ids=["one-width", "two-widths"])
def test_gate_is_made_in_float32(width):
    """Where a model is made in half precision, not read: its gate was made in it too, though every load keeps it whole."""
    own = [tiny_llama(0).config.to_dict(), tiny_llama(1, hidden_size=width).config.to_dict()]
    made = AutoModelForCausalLM.from_config(UltraFuserConfig(specialists=own), dtype=torch.bfloat16)
    assert {name: p.dtype for name, p in made.named_parameters() if (p.dtype == torch.float32) != (".gate." in name)} == {}


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


@pytest.mark.parametrize("cut", [1, 3, 40])
def test_a_cut_vocabulary_is_loaded_again(unlike, cut, tmp_path):
    """Catches a model that was made with fewer ids, saved, and is then refused for what is said of those that were cut."""
    config = copy.deepcopy(unlike.model.config)
    config.masked_token_ids = [5, config.vocab_size - 1]
    config.vocab_size -= cut
    model = UltraFuserForCausalLM(config)
    again = _reloaded(model.eval(), tmp_path / "cut")
    ids = torch.arange(config.vocab_size).remainder(config.slot_start)[None, -8:]
    torch.testing.assert_close(again(ids).logits, model(ids).logits)


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


@torch.no_grad()
def test_exported():
    """``torch.export`` finds one graph, and texts of any length go through it: one way to pick states fixed their number."""
    templates = Templates(user=[[1, 2], [5]], answer=[[8], [9, 10]])
    model = fuse_by_hand([tiny_llama(seed, num_hidden_layers=1) for seed in range(2)], templates)
    ids = torch.tensor([templates.fused_ids([[20, 21]])])
    length = {1: torch.export.Dim("length", min=2, max=64)}
    inputs, shapes = {"input_ids": ids, "use_cache": False}, {"input_ids": length, "use_cache": None}
    program = torch.export.export(model, (), inputs, dynamic_shapes=shapes, strict=False).module()
    longer = inputs | {"input_ids": ids.repeat(1, 3)}
    torch.testing.assert_close(program(**longer).logits, model(**longer).logits)


def test_generate_compiles_its_steps_once():
    """With a static cache ``generate`` compiles by itself: one whole graph, also for a second batch and for all outputs."""
    torch.compiler.reset()
    graphs = []

    def keep(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiling = CompileConfig(fullgraph=True, dynamic=False, mode=None, backend=keep)
    compiling._compile_all_devices = True
    case = in_eager(Case(build("unlike", num_hidden_layers=1), rows_of("unlike")))
    for one in (case, Case(case.model, [[*row[:-1], 27] for row in case.rows])):
        expected = one.generate(max_new_tokens=4)
        out = one.generate(max_new_tokens=4, cache_implementation="static", compile_config=compiling, **EVERYTHING)
        assert torch.equal(out.sequences, expected)
        width = one.ids.shape[1]
        check_everything(out, case.model.config, batch=2, width=width, steps=4, keys=width + 3)
    assert len(graphs) == 1


@pytest.mark.slow
def test_compiled_forward_with_a_static_cache(case):
    """torch.compile finds one whole graph, and its answers are those of plain code."""
    torch.compiler.reset()
    model = copy.deepcopy(case.model)
    compiled = Case(model, case.rows)
    model.forward = torch.compile(model.forward, fullgraph=True, backend="inductor")
    static = {"cache_implementation": "static", "disable_compile": True}
    assert torch.equal(compiled.generate(max_new_tokens=6, **static), case.generate(max_new_tokens=6))
