"""The slow, obvious reference of the fused model: N separate models, each fed its own prompt, and an explicit mix.

Shares no code with the package: weights are placed by hand, prompts are built from plain token lists, nothing is cached.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from ultrafuser.model.configuration_ultrafuser import UltraFuserConfig
from ultrafuser.model.modeling_ultrafuser import UltraFuserForCausalLM

VOCAB = 61
END = 60  # every specialist's own end token, and the fused one


def tiny_llama(seed: int, **changes: object) -> LlamaForCausalLM:
    """A random Llama whose logits are spread widely enough for argmax to mean something."""
    torch.manual_seed(seed)
    geometry = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "initializer_range": 0.15,
    }
    return LlamaForCausalLM(LlamaConfig(**(geometry | changes))).eval()


@dataclass
class Templates:
    """Token lists around contents, one per specialist: before a user turn, before the answer."""

    user: list[list[int]]
    answer: list[list[int]]
    slots: dict[tuple[str, int], int] = field(default_factory=dict)  # (piece, place) -> fused id

    def __post_init__(self) -> None:
        next_id = VOCAB
        for piece in ("user", "answer"):
            for place in range(max(len(tokens) for tokens in getattr(self, piece))):
                self.slots[piece, place] = next_id
                next_id += 1

    def source(self, piece: str, place: int, j: int) -> int | None:
        """Specialist j's token at a slot; shorter lists are aligned to the right."""
        lists = getattr(self, piece)
        missing = max(len(tokens) for tokens in lists) - len(lists[j])
        return lists[j][place - missing] if place >= missing else None

    def own_ids(self, j: int, turns: list[list[int]]) -> list[int]:
        """Specialist j's own prompt: turns are user, answer, user, ..; an answer is closed by END."""
        ids: list[int] = []
        for i, content in enumerate(turns):
            ids += self.user[j] + content + self.answer[j] if i % 2 == 0 else [*content, END]
        return ids

    def fused_ids(self, turns: list[list[int]]) -> list[int]:
        """The same conversation in slot tokens."""
        ids: list[int] = []
        for i, content in enumerate(turns):
            around = {piece: [slot for (name, _), slot in self.slots.items() if name == piece] for piece in ("user", "answer")}
            ids += around["user"] + content + around["answer"] if i % 2 == 0 else [*content, END]
        return ids


def fuse_by_hand(own: list[PreTrainedModel], templates: Templates | None = None, seed: int = 0) -> UltraFuserForCausalLM:
    """Place every weight of the specialists in a fused model, one by one."""
    n = len(own)
    slots = templates.slots if templates else {}
    visible = [[int(templates.source(*slot, j) is not None) for j in range(n)] for slot in slots] if templates else []
    config = UltraFuserConfig(
        specialists=[model.config.to_dict() for model in own],
        gate_hidden_size=16,
        vocab_size=VOCAB + len(slots),
        slot_start=VOCAB,
        slot_visibility=visible,
        eos_token_id=END,
        pad_token_id=0,
    )
    torch.manual_seed(seed)
    fused = UltraFuserForCausalLM(config).eval()
    state = {name: tensor.clone() for name, tensor in fused.state_dict().items()}
    for name in state:
        if ".gate." in name:  # a gate that has an opinion
            state[name] = torch.randn_like(state[name]) * 0.3
    column = layer = 0
    for j, model in enumerate(own):
        theirs, width = model.state_dict(), model.config.hidden_size
        for table in ("model.embed_tokens.weight", "lm_head.weight"):
            state[table][:VOCAB, column : column + width] = theirs[table]
        for (piece, place), slot in slots.items():
            source = templates.source(piece, place, j)
            state["model.embed_tokens.weight"][slot, column : column + width] = (
                theirs["model.embed_tokens.weight"][source] if source is not None else 0.0
            )
        state[f"model.norms.{j}.weight"] = theirs["model.norm.weight"]
        for name, tensor in theirs.items():
            if name.startswith("model.layers."):
                _, _, index, rest = name.split(".", 3)
                state[f"model.layers.{layer + int(index)}.{rest}"] = tensor
        column, layer = column + width, layer + model.config.num_hidden_layers
    fused.load_state_dict(state)
    return fused


@torch.no_grad()
def mixed_logits(fused: UltraFuserForCausalLM, own: list[PreTrainedModel], prompts: list[list[int]]) -> torch.Tensor:
    """Fused next-token logits (VOCAB,) after each specialist's own prompt: paper, equation 1, by hand."""
    gate = {name.rsplit("gate.", 1)[1]: tensor for name, tensor in fused.state_dict().items() if ".gate." in name}
    scores, logits = [], []
    for model, prompt in zip(own, prompts, strict=True):
        output = model(torch.tensor([prompt]), output_hidden_states=True)
        h = output.hidden_states[-1][0, -1]
        inner = torch.relu(gate["linear_in.weight"] @ h + gate["linear_in.bias"])
        scores.append(gate["linear_out.weight"] @ inner + gate["linear_out.bias"])
        logits.append(output.logits[0, -1])
    weights = torch.softmax(torch.cat(scores), dim=0)
    return sum(w * o for w, o in zip(weights, logits, strict=True))


def stepwise_argmax(fused: UltraFuserForCausalLM, own: list[PreTrainedModel], prompts: list[list[int]], steps: int) -> list[int]:
    """Greedy answer by N separate models without a cache, up to and including END."""
    answer: list[int] = []
    while len(answer) < steps and END not in answer:
        answer.append(int(mixed_logits(fused, own, [[*prompt, *answer] for prompt in prompts]).argmax()))
    return answer
