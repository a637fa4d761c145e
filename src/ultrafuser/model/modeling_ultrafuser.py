"""The fused model as one ordinary decoder: paper, section 2, equation 1, in the form of docs/design.md.

w = softmax([g(h_1), .., g(h_N)]);  fused logits = sum_j w_j W_j h_j = [W_1 | .. | W_N] concat(w_j h_j)

so the base model returns concat(w_j h_j) and an ordinary lm_head of width sum_j H_j gives the fused logits; N tensors of
logits are never built. This file and those it imports from here are copied into every saved checkpoint.

Notation: B batch, T tokens of this call, S tokens so far (T + cached), N specialists, H_j width of specialist j, H their
sum, V vocabulary. Annotations are objects here, not strings: the library reads those of ``forward``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import DynamicCache, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.models.llama import modeling_llama as llama
from transformers.models.mistral import modeling_mistral as mistral
from transformers.models.qwen2 import modeling_qwen2 as qwen2
from transformers.models.qwen3 import modeling_qwen3 as qwen3
from transformers.processing_utils import Unpack
from transformers.utils.generic import TransformersKwargs, can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .cache_ultrafuser import CACHE, takes_cache
from .configuration_ultrafuser import UltraFuserConfig, layer_types, sliding_window, write_code
from .gate_ultrafuser import UltraFuserGate
from .generation_ultrafuser import UltraFuserGenerationMixin
from .loss_ultrafuser import carries_loss, target_losses
from .positions_ultrafuser import positions, within_window

LAYERS = {
    "llama": llama.LlamaDecoderLayer,
    "mistral": mistral.MistralDecoderLayer,
    "qwen2": qwen2.Qwen2DecoderLayer,
    "qwen3": qwen3.Qwen3DecoderLayer,
}
NORMS = {"llama": llama.LlamaRMSNorm, "mistral": mistral.MistralRMSNorm, "qwen2": qwen2.Qwen2RMSNorm, "qwen3": qwen3.Qwen3RMSNorm}
ROTARY = {
    "llama": llama.LlamaRotaryEmbedding,
    "mistral": mistral.MistralRotaryEmbedding,
    "qwen2": qwen2.Qwen2RotaryEmbedding,
    "qwen3": qwen3.Qwen3RotaryEmbedding,
}
ATTENTIONS = [llama.LlamaAttention, mistral.MistralAttention, qwen2.Qwen2Attention, qwen3.Qwen3Attention]


@dataclass
class UltraFuserModelOutput(BaseModelOutputWithPast):
    """``last_hidden_state`` (B, T, H) is concat(w_j h_j); ``gate_weights`` (B, T, N) float32 when asked for."""

    gate_weights: torch.FloatTensor | None = None


@dataclass
class UltraFuserCausalLMOutput(CausalLMOutputWithPast):
    """``gate_weights`` (B, T, N) and ``token_losses`` (B, T), float32, when asked for; a token's loss stands at its own index."""

    gate_weights: torch.FloatTensor | None = None
    token_losses: torch.FloatTensor | None = None


class UltraFuserPreTrainedModel(PreTrainedModel):
    """Loading, saving and what the library may do with the fused model."""

    config_class = UltraFuserConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = [layer.__name__ for layer in LAYERS.values()]  # noqa: RUF012
    _skip_keys_device_placement = [CACHE]  # noqa: RUF012
    # The gate computes in float32: its weights are kept so by every dtype (the strict one), and whole by every quantiser (the
    # other, matched from a name's beginning). Patterns, as plain "gate" would match mlp.gate_proj; they match the same names,
    # but the library wants no entry in both.
    _keep_in_fp32_modules_strict = {r"(?:model\.)?gate\.\w+"}  # noqa: RUF012
    _keep_in_fp32_modules = {r"(?:model\.)?gate(?:\.\w+)+"}  # noqa: RUF012
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    # One class for the layers of all architectures: of several the library could not tell which layer is which.
    _can_record_outputs = {"hidden_states": GradientCheckpointingLayer, "attentions": ATTENTIONS}  # noqa: RUF012

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, UltraFuserModel):
            init.copy_(module.visible_table, module.make_visible_table())
        if isinstance(module, UltraFuserForCausalLM):
            init.copy_(module.unpredictable_ids, module.make_unpredictable_ids())

    def resize_token_embeddings(self, *args: Any, **kwargs: Any) -> nn.Embedding:
        """As the library's, and the tables of what is seen and predicted follow.

        Added tokens are seen by all specialists. They can be predicted where the vocabulary has no slot tokens; after
        slot tokens they can only be read.
        """
        config, ends_predictable = self.config, self.config.predictable_vocab_size == self.config.vocab_size
        embeddings = super().resize_token_embeddings(*args, **kwargs)
        size = config.vocab_size
        config.predictable_vocab_size = size if ends_predictable else min(size, config.predictable_vocab_size)
        config.masked_token_ids = [token for token in config.masked_token_ids if token < size]
        config.slot_visibility = config.slot_visibility[: max(0, size - config.slot_start)]
        self.base_model.visible_table = self.base_model.make_visible_table().to(embeddings.weight.device)
        if isinstance(self, UltraFuserForCausalLM):
            self.unpredictable_ids = self.make_unpredictable_ids().to(embeddings.weight.device)
        return embeddings

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """As the library's, and adds the code files, so that the checkpoint loads where this package is not installed."""
        super().save_pretrained(save_directory, *args, **kwargs)
        write_code(save_directory)

    def _upload_modified_files(self, working_dir: str | Path, *args: Any, **kwargs: Any) -> Any:
        """As the library's, with the code files: it uploads before `save_pretrained` is done, and only what is new by then."""
        write_code(working_dir)
        return super()._upload_modified_files(working_dir, *args, **kwargs)


class UltraFuserModel(UltraFuserPreTrainedModel):
    """N specialists' decoders side by side in one flat list of layers, and the gate over their last hidden states."""

    def __init__(self, config: UltraFuserConfig) -> None:
        super().__init__(config)
        own = config.specialist_configs()
        kinds = [c.model_type for c in own]
        self.widths = [c.hidden_size for c in own]
        self.depths = [c.num_hidden_layers for c in own]
        self.layer_types = [layer_types(c) for c in own]
        self.windows = [sliding_window(c) for c in own]
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            [LAYERS[kind](c, i) for kind, c in zip(kinds, own, strict=True) for i in range(c.num_hidden_layers)]
        )
        for flat_index, layer in enumerate(self.layers):
            layer.self_attn.layer_idx = flat_index  # its place in the one cache
            layer.self_attn.config = config  # where the attention implementation is looked up
        self.norms = nn.ModuleList([NORMS[kind](c.hidden_size, eps=c.rms_norm_eps) for kind, c in zip(kinds, own, strict=True)])
        self.rotary_embs = nn.ModuleList([ROTARY[kind](config=c) for kind, c in zip(kinds, own, strict=True)])
        self.gate = UltraFuserGate(config)
        self.register_buffer("visible_table", self.make_visible_table(), persistent=False)
        self.gradient_checkpointing = False
        self.post_init()

    def make_visible_table(self) -> torch.Tensor:
        """(V, N) bool: may specialist j see token v? False only at slot tokens that its template does not have."""
        table = torch.ones(self.config.vocab_size, len(self.widths), dtype=torch.bool)
        slots = table[self.config.slot_start :]  # fewer than there are rows where the vocabulary was cut
        if self.config.slot_visibility:
            visible = torch.tensor(self.config.slot_visibility, dtype=torch.bool)[: len(slots)]
            slots[: len(visible)] = visible
        return table

    @takes_cache
    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | dict[str, torch.Tensor] | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        use_cache: bool | None = None,
        output_gate_weights: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> UltraFuserModelOutput:
        """Run all specialists and mix their last hidden states.

        Args:
            input_ids: (B, T), slot tokens where templates differ.
            attention_mask: (B, S) shared; (N, B, S) one per specialist; or masks prepared by ``attention_masks``.
            position_ids: (B, T) shared, or (N, B, T) one per specialist.
            inputs_embeds: (B, T, H) instead of ``input_ids``. A hidden slot is known by its exact embedding; all others are
                seen by all specialists.

        Raises:
            ValueError: what hidden slots need cannot be known from these arguments.
        """
        if (input_ids is None) ^ (inputs_embeds is not None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        self._refuse_unservable(attention_mask)
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        elif self.config.hides_slots:
            input_ids = self.slot_ids(inputs_embeds)
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache(config=self.config)
        attention_mask, position_ids = self._place(input_ids, inputs_embeds, attention_mask, position_ids, past_key_values)
        masks = self.attention_masks(inputs_embeds, attention_mask, past_key_values, position_ids)
        kwargs |= {CACHE: past_key_values, "use_cache": use_cache}
        states = [
            self._run_specialist(j, chunk, masks, position_ids[j] if position_ids.dim() == 3 else position_ids, **kwargs)
            for j, chunk in enumerate(inputs_embeds.split(self.widths, dim=-1))
        ]  # N x (B, T, H_j)
        if self.config.hides_slots:
            states = self._carry_over_hidden(states, input_ids)
        weights = self.gate(states)  # (B, T, N)
        mixed = [(weights[..., j : j + 1] * state).to(state.dtype) for j, state in enumerate(states)]
        return UltraFuserModelOutput(
            last_hidden_state=torch.cat(mixed, dim=-1),  # (B, T, H)
            gate_weights=weights if output_gate_weights else None,
            **{CACHE: past_key_values},
        )

    def _run_specialist(
        self, j: int, hidden: torch.Tensor, masks: dict[str, Any], position_ids: torch.Tensor, **kwargs: Any
    ) -> torch.Tensor:
        """Specialist j's own decoder: chunk j of the embeddings (B, T, H_j) -> its normalised last hidden state, same shape."""
        position_embeddings = self.rotary_embs[j](hidden, position_ids=position_ids)
        first = sum(self.depths[:j])
        for kind, layer in zip(self.layer_types[j], self.layers[first : first + self.depths[j]], strict=True):
            hidden = layer(
                hidden,
                attention_mask=masks[f"{j}.{kind}"],
                position_embeddings=position_embeddings,
                position_ids=position_ids,
                **kwargs,
            )
        return self.norms[j](hidden)

    # What each specialist sees, and where it stands

    @torch.no_grad()
    def slot_ids(self, embeds: torch.Tensor) -> torch.Tensor:
        """(B, T) the ids of the hidden slots among embeddings (B, T, H), and 0 for all that is not exactly one of them."""
        hidden = torch.tensor(self.config.hidden_slots, device=embeds.device)
        ids = torch.zeros(embeds.shape[:2], dtype=torch.long, device=embeds.device)
        for slot, row in zip(hidden, self.embed_tokens(hidden), strict=True):
            ids = torch.where((embeds == row).all(dim=-1), slot, ids)
        return ids

    def visibility(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        """(N, B, S) bool: which of the tokens ``input_ids`` (B, S) each specialist attends to; ``attention_mask`` (B, S)."""
        visible = self.visible_table[input_ids].permute(2, 0, 1)  # (N, B, S)
        return visible if attention_mask is None else visible & attention_mask.bool()

    def _place(
        self,
        input_ids: torch.Tensor | None,
        embeds: torch.Tensor,
        attention_mask: Any,
        position_ids: torch.Tensor | None,
        cache: Cache | None,
    ) -> tuple[Any, torch.Tensor]:
        """Complete masks and positions: shared ones where all specialists see the same, else one per specialist."""
        length = embeds.shape[1]
        per_specialist = torch.is_tensor(attention_mask) and attention_mask.dim() == 3
        if self.config.hides_slots and not per_specialist and not isinstance(attention_mask, dict):
            attention_mask = self._visibility_without_past(input_ids, attention_mask, position_ids, cache)
            per_specialist = True
        if per_specialist:
            return attention_mask, positions(attention_mask)[..., -length:]
        if position_ids is None:
            past = cache.get_seq_length() if cache is not None else 0
            position_ids = (torch.arange(length, device=embeds.device) + past).unsqueeze(0)
        return attention_mask, position_ids

    def _visibility_without_past(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        position_ids: torch.Tensor | None,
        cache: Cache | None,
    ) -> torch.Tensor:
        if cache is not None and cache.get_seq_length() > 0:
            raise ValueError(
                "a model fused with unlike templates cannot tell from these tokens which cached tokens each specialist saw; "
                "use generate(), or pass attention_mask of shape (specialists, batch, tokens so far)"
            )
        if attention_mask is None and position_ids is not None:
            raise ValueError("packed sequences are not supported by a model fused with unlike templates; pad them instead")
        return self.visibility(input_ids, attention_mask)

    def _refuse_unservable(self, attention_mask: Any) -> None:
        """Engines that page the cache or prepare one mask themselves can serve only what needs no mask per specialist."""
        implementation = self.config._attn_implementation or ""
        if "paged" in implementation:
            self.require_one_stream()
        if "flash" in implementation and self.config.has_windows:
            raise ValueError("a sliding window lives in this model's masks, which flash attention does not take; use sdpa")
        if self.config.hides_slots and torch.is_tensor(attention_mask) and attention_mask.dim() == 4:
            raise ValueError("a model fused with unlike templates needs a mask per specialist, got one prepared mask for all")

    def require_one_stream(self) -> None:
        """Raise ValueError unless every layer has the same shape and sees every token in full (paged caches need that)."""
        reasons = {
            "the specialists' templates differ (fuse with one common template)": self.config.hides_slots,
            "a specialist has a sliding window": self.config.has_windows,
            "the specialists' attention heads differ in number or width": not self.config.one_geometry,
        }
        if found := [reason for reason, holds in reasons.items() if holds]:
            raise ValueError(f"continuous batching cannot serve this fused model: {'; '.join(found)}")

    def attention_masks(
        self, like: torch.Tensor, attention_mask: Any, cache: Cache | None, position_ids: torch.Tensor | None, skip: bool = True
    ) -> dict[str, Any]:
        """One mask per specialist and kind of layer, keyed ``"{j}.{kind}"``; equal ones are the same object.

        All are made before any layer runs: layer 0 advances the cache that they are sized from.

        Args:
            like: (B, T, *) for its batch, length, dtype and device.
            attention_mask: None, (B, S), (N, B, S), or already prepared.
            skip: allow None where the attention implementation can do without a mask.
        """
        if isinstance(attention_mask, dict):
            return attention_mask
        made: dict[tuple[int, int | None], Any] = {}
        masks = {}
        for j, kinds in enumerate(self.layer_types):
            shared = not torch.is_tensor(attention_mask) or attention_mask.dim() != 3
            seen = attention_mask if shared else attention_mask[j]
            for kind in set(kinds):
                window = self.windows[j] if kind == "sliding_attention" else None
                key = (-1 if shared else j, window)
                if key not in made:
                    made[key] = create_causal_mask(
                        config=self.config,
                        inputs_embeds=like,
                        attention_mask=seen,
                        position_ids=position_ids if shared else None,
                        and_mask_function=within_window(window, seen, like.shape[1], cache) if window else None,
                        allow_is_causal_skip=skip,
                        **{CACHE: cache},
                    )
                masks[f"{j}.{kind}"] = made[key]
        return masks

    def _carry_over_hidden(self, states: list[torch.Tensor], input_ids: torch.Tensor) -> list[torch.Tensor]:
        """Over a slot hidden from it, a specialist keeps its last visible state of this call (that ``generate`` sees to)."""
        visible = self.visible_table[input_ids]  # (B, T, N)
        here = torch.arange(input_ids.shape[1], device=input_ids.device).view(1, -1, 1)
        last = torch.where(visible, here, -1).cummax(dim=1).values
        last = torch.where(last < 0, here, last)  # (B, T, N); nothing visible yet: stay
        # gather, as take_along_dim would fix the length of an exported graph
        return [state.gather(1, last[..., j : j + 1].expand_as(state)) for j, state in enumerate(states)]


class UltraFuserForCausalLM(UltraFuserPreTrainedModel, UltraFuserGenerationMixin):
    """The fused model with its lm_head [W_1 | .. | W_N] of shape (V, H)."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012
    _tp_plan = {"lm_head": "colwise_gather_output"}  # noqa: RUF012

    def __init__(self, config: UltraFuserConfig) -> None:
        super().__init__(config)
        self.model = UltraFuserModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.register_buffer("unpredictable_ids", self.make_unpredictable_ids(), persistent=False)
        self.post_init()

    def make_unpredictable_ids(self) -> torch.Tensor:
        """(K,) int64: ids that are never predicted: slot tokens except the end of a turn, and tokens not all specialists have."""
        size = self.config.vocab_size
        masked = (token for token in self.config.masked_token_ids if token < size)  # others where the vocabulary was cut
        return torch.tensor([*masked, *range(self.config.predictable_vocab_size, size)], dtype=torch.long)

    @takes_cache
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | dict[str, torch.Tensor] | None = None,
        position_ids: torch.LongTensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        output_token_losses: bool = False,
        shift_labels: torch.LongTensor | None = None,
        num_items_in_batch: int | torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> UltraFuserCausalLMOutput:
        """Fused next-token logits (B, T, V), and with ``labels`` (B, T) the loss.

        The loss is the mean over labelled tokens that can be predicted, or their sum over ``num_items_in_batch`` where that is
        given (gradient accumulation). While training with labels no logits are built and ``logits`` is None. ``shift_labels``
        (B, T), as sequence parallelism gives them, take the place of ``labels``: already at the index that predicts them, where
        their ``token_losses`` then stand too.
        """
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            **{CACHE: past_key_values},
            **kwargs,
        )
        hidden = outputs.last_hidden_state
        logits = loss = losses = None
        targets = shift_labels if shift_labels is not None or labels is None else labels[:, 1:]
        if targets is not None:
            targets = targets.to(hidden.device)
            losses = target_losses(hidden[:, : targets.shape[1]], self.lm_head.weight, targets, self.unpredictable_ids)
            if num_items_in_batch is None:
                num_items_in_batch = carries_loss(targets, self.unpredictable_ids).sum().clamp(min=1)
            loss = losses.sum() / num_items_in_batch
            losses = F.pad(losses, (1, 0)) if shift_labels is None else losses
        if targets is None or not self.training:
            kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            logits = self.lm_head(hidden[:, kept])
            # Not -inf: the probability is exactly 0 all the same, but entropies and differences of log-probabilities stay numbers
            logits = logits.index_fill_(-1, self.unpredictable_ids, torch.finfo(logits.dtype).min)
        return UltraFuserCausalLMOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            gate_weights=outputs.gate_weights,
            token_losses=losses if output_token_losses else None,
            **{CACHE: outputs.get(CACHE)},
        )


__all__ = ["UltraFuserForCausalLM", "UltraFuserModel", "UltraFuserPreTrainedModel"]
