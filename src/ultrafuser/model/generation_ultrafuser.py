"""What the library's ``generate`` needs to know of a model whose specialists may each see other tokens.

Copied into every saved checkpoint.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import GenerationMixin

from .cache_ultrafuser import CACHE
from .positions_ultrafuser import positions


class UltraFuserGenerationMixin(GenerationMixin):
    """The library's generation, with a mask and positions per specialist where their templates or windows differ."""

    def prepare_inputs_for_generation(
        self, input_ids: torch.LongTensor, inputs_embeds: torch.FloatTensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """As the library's, with a mask and positions per specialist where their templates or windows differ.

        Works from the ids of all tokens so far by table look-up and keeps no state, so beams and drafts need nothing special.
        ``inputs_embeds`` is named because the library looks for it here before it takes embeddings for a prompt.
        """
        prompt = kwargs.pop("whole_prompt", None)
        attention_mask, cache = kwargs.get("attention_mask"), kwargs.get(CACHE)
        inputs = super().prepare_inputs_for_generation(input_ids, inputs_embeds=inputs_embeds, **kwargs)
        static = cache is not None and cache.is_compileable
        if not self.config.hides_slots and not (static and self.config.has_windows):
            return inputs
        tokens = inputs["input_ids"] if inputs.get("inputs_embeds") is None else inputs["inputs_embeds"]
        batch, length = tokens.shape[:2]
        if self.config.hides_slots:
            past = int(cache.get_seq_length()) if cache is not None else 0
            ids = input_ids if prompt is None else prompt[:, : past + length]
            ids = self._ids_so_far(ids, inputs_embeds, past + length)
            attention_mask = self.model.visibility(ids, attention_mask)  # (N, B, S)
            # a stride that grew with the text would have torch.compile compile every step anew
            inputs["position_ids"] = positions(attention_mask)[..., -length:].contiguous()
        if static:
            like = torch.empty((batch, length, 0), dtype=self.dtype, device=tokens.device)
            attention_mask = self.model.attention_masks(like, attention_mask, cache, None, skip=False)
        inputs["attention_mask"] = attention_mask
        return inputs

    def _ids_so_far(self, ids: torch.Tensor, prompt_embeds: torch.Tensor | None, length: int) -> torch.Tensor:
        """(B, length): ``ids``, after those of a prompt that was given as embeddings only."""
        if prompt_embeds is not None and ids.shape[1] < length:
            ids = torch.cat([self.model.slot_ids(prompt_embeds), ids], dim=1)
        if ids.shape[1] != length:
            raise ValueError(
                f"a model fused with unlike templates needs the ids of all {length} tokens so far, not of the last {ids.shape[1]}"
            )
        return ids

    def _prefill(
        self, input_ids: torch.LongTensor, generation_config: Any, model_kwargs: dict[str, Any], *rest: Any, **more: Any
    ) -> Any:
        """As the library's, which reads a long prompt in chunks: the chunks before tell what each specialist sees, too.

        Raises ValueError where a cached prefix ends among slots that a specialist whose template has nothing before the answer
        does not see: its last state is not in the cache.
        """
        if self.config.hides_slots:
            embeds, cache, mask = (model_kwargs.get(name) for name in ("inputs_embeds", CACHE, "attention_mask"))
            ids = input_ids if embeds is None or input_ids.shape[1] else self.model.slot_ids(embeds)
            new = ids.shape[1] - (int(cache.get_seq_length()) if cache is not None else 0)
            if new > 0 and (mask is None or mask.shape[-1] == ids.shape[1]):  # else ids are missing: told with the inputs
                generation_config = self._with_whole_tail(generation_config, self._tail(ids), new)
        return super()._prefill(input_ids, generation_config, model_kwargs | {"whole_prompt": input_ids}, *rest, **more)

    def _tail(self, ids: torch.Tensor) -> int:
        """How many tokens at the end of ``ids`` (B, T) must be read in one call: back to one that each specialist sees."""
        seen = self.model.visible_table[ids].flip(1).cummax(dim=1).values  # (B, T, N) anything from here to the end
        return min(ids.shape[1], 1 + int((~seen).sum(dim=1).max()))

    @staticmethod
    def _with_whole_tail(generation_config: Any, tail: int, new: int) -> Any:
        """The settings with chunks of which the last has the whole ``tail`` of the ``new`` tokens, where there are chunks."""
        size = generation_config.prefill_chunk_size
        if new < tail:
            raise ValueError(
                f"the cached prefix must end before the last {tail} tokens of the prompt, of which {new} are not cached: "
                "a specialist's template has none of them but the first, so they are read together"
            )
        if size is None or (new - 1) % size + 1 >= tail:
            return generation_config
        generation_config = copy.copy(generation_config)
        generation_config.prefill_chunk_size = next(wider for wider in range(size, new + 1) if (new - 1) % wider + 1 >= tail)
        return generation_config

    def init_continuous_batching(self, *args: Any, **kwargs: Any) -> Any:
        """As the library's. Raises ValueError for models that a paged cache cannot serve, before anything starts."""
        self.model.require_one_stream()
        return super().init_continuous_batching(*args, **kwargs)
