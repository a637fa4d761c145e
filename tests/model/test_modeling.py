"""The fused model against N separate models and an explicit mix (tests/reference.py)."""

from __future__ import annotations

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM

from reference import END, VOCAB, Templates, fuse_by_hand, mixed_logits, stepwise_argmax, tiny_llama

UNLIKE = Templates(user=[[1, 2, 3, 4], [5], [6, 7]], answer=[[8], [9, 10, 11], [12, 13]])
TURNS = [[20, 21, 22], [30, 31], [23, 24]]
BATCH = [[[20, 21, 22, 25, 26]], [[20]], [[23, 24], [30, 31, 32, 33], [25]]]


@pytest.fixture(scope="module")
def own():
    return [tiny_llama(seed) for seed in range(3)]


@pytest.fixture(scope="module")
def alike(own):
    return fuse_by_hand(own)


@pytest.fixture(scope="module")
def unlike(own):
    return fuse_by_hand(own, UNLIKE)


def left_padded(rows: list[list[int]], pad: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def answers(output: torch.Tensor, prompt_length: int) -> list[list[int]]:
    rows = output[:, prompt_length:].tolist()
    return [row[: row.index(END) + 1] if END in row else row for row in rows]


@torch.no_grad()
def test_logits_with_one_template(own, alike):
    """Every position's fused logits are the explicit mix: catches wrong chunks, layer order, masks or mixing."""
    ids = [20, 21, 22, 40, 41]
    logits = alike(torch.tensor([ids])).logits[0]
    for t in range(len(ids)):
        expected = mixed_logits(alike, own, [ids[: t + 1]] * 3)
        torch.testing.assert_close(logits[t], expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_logits_with_unlike_templates_and_many_turns(own, unlike):
    """Slots seen by some specialists only must not shift or leak into the others, in any turn."""
    for length in (1, 3):
        prompts = [UNLIKE.own_ids(j, TURNS[:length]) for j in range(3)]
        logits = unlike(torch.tensor([UNLIKE.fused_ids(TURNS[:length])])).logits[0, -1]
        torch.testing.assert_close(logits[:VOCAB], mixed_logits(unlike, own, prompts), atol=2e-5, rtol=1e-5)
        assert logits.softmax(-1)[VOCAB:].eq(0).all()  # slot tokens are never predicted


@torch.no_grad()
def test_hidden_slot_at_the_end_carries_the_last_visible_state(own):
    """A prompt that ends in a slot which one specialist does not see must use that specialist's last visible state."""
    templates = Templates(user=[[1], [2]], answer=[[8, 9], []])
    pair = own[:2]
    fused = fuse_by_hand(pair, templates)
    logits = fused(torch.tensor([templates.fused_ids([[20, 21]])])).logits[0, -1]
    prompts = [templates.own_ids(j, [[20, 21]]) for j in range(2)]
    torch.testing.assert_close(logits[:VOCAB], mixed_logits(fused, pair, prompts), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "cache", [{}, {"use_cache": False}, {"cache_implementation": "static"}], ids=["dynamic", "none", "static"]
)
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@torch.no_grad()
def test_generate_batched_and_left_padded(own, cache, implementation):
    """Batched generate with padding, templates, caches and turns equals stepwise argmax of N separate models."""
    unlike = fuse_by_hand(own, UNLIKE)
    unlike.set_attn_implementation(implementation)
    ids, mask = left_padded([UNLIKE.fused_ids(turns) for turns in BATCH])
    output = unlike.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=10, disable_compile=True, **cache)
    for got, turns in zip(answers(output, ids.shape[1]), BATCH, strict=True):
        assert got == stepwise_argmax(unlike, own, [UNLIKE.own_ids(j, turns) for j in range(3)], 10)


@torch.no_grad()
def test_generate_with_one_template(own, alike):
    """The same where no slots exist, which takes the library's own masks and positions."""
    rows = [[20, 21, 22, 23, 24], [30]]
    ids, mask = left_padded(rows)
    output = alike.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=10)
    for got, row in zip(answers(output, ids.shape[1]), rows, strict=True):
        assert got == stepwise_argmax(alike, own, [row] * 3, 10)


@torch.no_grad()
def test_beam_search_and_drafting_with_unlike_templates(unlike):
    """Beams reorder and drafts roll back the cache: with it must equal without it, which keeps no state at all."""
    ids, mask = left_padded([UNLIKE.fused_ids(turns) for turns in BATCH[:2]])
    options = {"attention_mask": mask, "do_sample": False, "max_new_tokens": 8}
    beams = unlike.generate(ids, num_beams=3, **options)
    assert torch.equal(beams, unlike.generate(ids, num_beams=3, use_cache=False, **options))
    one = torch.tensor([UNLIKE.fused_ids(BATCH[2])])
    plain = unlike.generate(one, do_sample=False, max_new_tokens=12)
    assert torch.equal(plain, unlike.generate(one, do_sample=False, max_new_tokens=12, prompt_lookup_num_tokens=3))


@torch.no_grad()
def test_one_hot_gate_is_that_specialist(own, alike):
    """With all the weight on one specialist the fused logits are that specialist's."""
    fused = fuse_by_hand(own)
    ids = torch.tensor([[20, 21, 22, 23]])
    for j, model in enumerate(own):
        fused.model.gate.forward = lambda states, j=j: torch.eye(3)[j].expand(*states[0].shape[:2], 3)
        torch.testing.assert_close(fused(ids).logits, model(ids).logits, atol=1e-5, rtol=1e-5)


def test_loss_equals_cross_entropy_of_the_explicit_mix(own, alike):
    """Loss and gradients without logits equal those of N logit tensors mixed and given to cross_entropy."""
    ids = torch.tensor([[20, 21, 22, 23, 24], [25, 26, 27, 28, 0]])
    labels = torch.tensor([[-100, -100, 22, 23, 24], [-100, 26, -100, 28, -100]])
    fused = fuse_by_hand(own).train()
    output = fused(ids, labels=labels, output_gate_weights=True, output_token_losses=True)
    output.loss.backward()
    assert output.logits is None

    other = fuse_by_hand(own).train()
    hidden = other.model(ids, output_gate_weights=True)
    weights = hidden.gate_weights
    parts = hidden.last_hidden_state.split(32, -1)
    each = [(part / weights[..., j : j + 1]) @ other.lm_head.weight[:, 32 * j : 32 * j + 32].T for j, part in enumerate(parts)]
    logits = sum(weights[..., j : j + 1] * o for j, o in enumerate(each))
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    expected.backward()
    torch.testing.assert_close(output.loss, expected, atol=1e-5, rtol=1e-5)
    for (name, got), want in zip(fused.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(got.grad, want.grad, atol=1e-5, rtol=1e-4, msg=lambda m, name=name: f"{name}: {m}")
    assert output.token_losses[0, :2].eq(0).all() and output.token_losses[0, 2] > 0
    torch.testing.assert_close(output.token_losses.sum() / 5, output.loss)


def test_gradient_of_a_specialist_is_scaled_by_its_weight(own, alike):
    """Paper, section 2: the gate acts as a per-token learning rate; a specialist of weight 0 gets no gradient."""
    fused = fuse_by_hand(own).train()
    fused.model.gate.forward = lambda states: torch.tensor([1.0, 0.0, 0.0]).expand(*states[0].shape[:2], 3)
    ids = torch.tensor([[20, 21, 22]])
    fused(ids, labels=ids).loss.backward()
    assert fused.model.layers[0].mlp.up_proj.weight.grad.abs().sum() > 0
    assert fused.model.layers[2].mlp.up_proj.weight.grad.abs().sum() == 0


@torch.no_grad()
def test_architectures_depths_and_widths_may_differ():
    """Unlike depth, width and architecture with sliding windows: mixed by hand, with and without a cache."""
    shape = {"vocab_size": VOCAB, "intermediate_size": 40, "max_position_embeddings": 128, "initializer_range": 0.15}
    torch.manual_seed(5)
    mistral = MistralForCausalLM(
        MistralConfig(
            **shape, hidden_size=48, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=4, sliding_window=4
        )
    )
    qwen2 = Qwen2ForCausalLM(
        Qwen2Config(
            **shape, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
            use_sliding_window=True, sliding_window=3, max_window_layers=1,
        )
    )  # fmt: skip
    qwen3 = Qwen3ForCausalLM(
        Qwen3Config(**shape, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8)
    )
    own = [mistral.eval(), qwen2.eval(), qwen3.eval(), tiny_llama(3, hidden_size=48)]
    templates = Templates(user=[[1, 2, 3], [4], [], [5]], answer=[[8], [9, 10], [11, 12, 13], [14]])
    fused = fuse_by_hand(own, templates)
    for j, width in enumerate((48, 32, 48, 48)):  # the same input projection by hand: identity, or zero-padded
        fused.model.gate.input_projections[j].weight.copy_(torch.eye(48, width))
    turns = [[20, 21, 22, 23, 24, 25]]
    prompts = [templates.own_ids(j, turns) for j in range(4)]
    ids = torch.tensor([templates.fused_ids(turns)])
    padded = [_padded_gate_reference(fused, own, prompts)]
    torch.testing.assert_close(fused(ids).logits[0, -1, :VOCAB], padded[0], atol=3e-5, rtol=1e-4)
    plain = fused.generate(ids, do_sample=False, max_new_tokens=12, use_cache=False)
    assert torch.equal(plain, fused.generate(ids, do_sample=False, max_new_tokens=12))
    static = {"cache_implementation": "static", "disable_compile": True}
    assert torch.equal(plain, fused.generate(ids, do_sample=False, max_new_tokens=12, **static))


def _padded_gate_reference(fused, own, prompts):
    scores, logits = [], []
    gate = fused.model.gate
    for model, prompt in zip(own, prompts, strict=True):
        output = model(torch.tensor([prompt]), output_hidden_states=True)
        h = output.hidden_states[-1][0, -1]
        h = torch.cat([h, torch.zeros(48 - h.numel())])
        scores.append(gate.linear_out.weight @ torch.relu(gate.linear_in.weight @ h + gate.linear_in.bias) + gate.linear_out.bias)
        logits.append(output.logits[0, -1])
    return sum(w * o for w, o in zip(torch.softmax(torch.cat(scores), 0), logits, strict=True))


@torch.no_grad()
def test_what_cannot_be_known_is_refused(unlike):
    """A cache without visibility, one mask for all and packed sequences would be silently wrong."""
    ids = torch.tensor([UNLIKE.fused_ids(TURNS)])
    past = unlike(ids[:, :-1], use_cache=True).past_key_values
    with pytest.raises(ValueError, match="which cached tokens"):
        unlike(ids[:, -1:], past_key_values=past)
    with pytest.raises(ValueError, match="mask per specialist"):
        unlike(ids, attention_mask=torch.ones(1, 1, ids.shape[1], ids.shape[1], dtype=torch.bool))
    with pytest.raises(ValueError, match="packed"):
        unlike(ids, position_ids=torch.arange(ids.shape[1])[None])
    with pytest.raises(ValueError, match="continuous batching cannot"):
        unlike.init_continuous_batching()


def test_gate_stays_float32_in_a_bfloat16_model(own):
    """Rounding the gate's scores to bfloat16 moves the mix by per cents."""
    fused = fuse_by_hand(own).to(torch.bfloat16)
    states = [torch.randn(1, 3, 32, dtype=torch.bfloat16) for _ in range(3)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weights = fused.model.gate(states)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 3), atol=1e-6, rtol=0)


def test_masked_tokens_are_never_predicted(own):
    """Tokens that not all specialists have are out of the logits and out of the loss's denominator."""
    fused = fuse_by_hand(own)
    fused.config.masked_token_ids = [3, 7]
    fused.unpredictable_ids = fused.make_unpredictable_ids()
    ids = torch.tensor([[20, 21, 22]])
    output = fused(ids, labels=ids)
    assert output.logits.softmax(-1)[..., [3, 7]].eq(0).all()
    expected = torch.nn.functional.cross_entropy(output.logits[0, :-1], ids[0, 1:])
    torch.testing.assert_close(output.loss, expected)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_never_predicted_spoils_no_figure(own, dtype):
    """Logits of -inf make entropies and differences of log-probabilities NaN (0 times infinity, infinity less itself)."""
    fused = fuse_by_hand(own).to(dtype)
    fused.config.masked_token_ids = [3, 7]
    fused.unpredictable_ids = fused.make_unpredictable_ids()
    logits = fused(torch.tensor([[20, 21, 22]])).logits[0]
    kept = torch.tensor([token for token in range(VOCAB) if token not in (3, 7)])
    logs, without = logits.float().log_softmax(-1), logits[:, kept].float().log_softmax(-1)
    entropy = torch.distributions.Categorical(logits=without).entropy()
    torch.testing.assert_close(-(logs.exp() * logs).sum(-1), entropy)
    torch.testing.assert_close(-(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1).float(), entropy, atol=0.05, rtol=0)
    divergence = torch.nn.functional.kl_div(logs[:-1], logs[1:], log_target=True, reduction="sum")
    expected = torch.nn.functional.kl_div(without[:-1], without[1:], log_target=True, reduction="sum")
    torch.testing.assert_close(divergence, expected)
    for temperature in (0.1, 1.0, 100.0):
        assert (logits.float() / temperature).softmax(-1)[:, [3, 7]].eq(0).all()
