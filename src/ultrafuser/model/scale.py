"""The scale of a specialist's logits, as the entropy of what it predicts.

It matters because logits are mixed before the softmax (paper, equation 1): a specialist that is surer of everything
(hotter logits) dominates an untrained mix.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

from ultrafuser.errors import UserError
from ultrafuser.model.quiet import quiet_transformers
from ultrafuser.model.sources import Specialist
from ultrafuser.model.tensors import dtype_name
from ultrafuser.tokens.encode import encode_conversation
from ultrafuser.tokens.pieces import TemplatePieces

PROBES = (
    (
        "Why is the sky blue?",
        "Because air scatters short waves of sunlight more than long ones, so blue light reaches us from all sides.",
    ),
    ("Write a Python function that adds two numbers.", "def add(a, b):\n    return a + b\n"),
    ("Tom has 3 apples and buys 4 more. How many has he?", "Tom has 3 + 4 = 7 apples. The answer is 7."),
)


@torch.no_grad()
def mean_entropy(one: Specialist, pieces: TemplatePieces) -> float:
    """Mean entropy in nats of the specialist's next-token distributions on the probes' answers, in its own template.

    Raises `UserError` when a weight or a prediction is not finite.
    """
    weights = {name: tensor.rows(0, tensor.shape[0]) for name, tensor in one.tensors.items()}
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(one.config)]
    with quiet_transformers():  # an adapter has no checkpoint to load
        model = kind.from_pretrained(None, config=one.config, state_dict=weights, dtype=one.dtype)
    entropies = []
    for question, answer in PROBES:
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        encoded = encode_conversation(one.tokenizer, pieces, messages)
        logits = model(torch.tensor([encoded.input_ids])).logits[0, :-1].float()  # (T - 1, V)
        logs = logits.log_softmax(-1)
        entropies.append(-(logs.exp() * logs).sum(-1)[torch.tensor(encoded.is_answer[1:])])  # (answer tokens,)
    mean = float(torch.cat(entropies).mean())
    if not math.isfinite(mean):
        raise UserError(f"{one.folder}: what it predicts is not finite in {dtype_name(one.dtype)}; give it in a wider dtype")
    return mean
