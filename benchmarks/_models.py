"""What the model benchmarks share: random specialists, the model fused of them, options and the printed report.

Weights are random: time and memory do not depend on their values.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from typing import Any


def parser(description: str, **defaults: int) -> argparse.ArgumentParser:
    """Options common to the model benchmarks; ``defaults`` sets the sizes."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    sizes = {"specialists": 3, "hidden": 512, "layers": 8, "vocab": 32000, "tokens": 256, "batch": 2, "gate": 512} | defaults
    for name, size in sizes.items():
        options.add_argument(f"--{name}", type=int, default=size)
    options.add_argument("--threads", type=int, default=os.cpu_count(), help="CPU threads")
    options.add_argument("--device", default="cpu", help="cpu or cuda")
    options.add_argument("--dtype", default="float32", help="of the weights, such as bfloat16")
    return options


def specialist_config(options: argparse.Namespace) -> Any:
    """Configuration of one specialist: a Llama of the sizes asked for, heads 64 wide."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=options.vocab,
        hidden_size=options.hidden,
        intermediate_size=round(options.hidden * 8 / 3 / 64) * 64,
        num_hidden_layers=options.layers,
        num_attention_heads=max(1, options.hidden // 64),
        max_position_embeddings=max(2048, options.tokens),
        eos_token_id=None,  # what random weights say ends nowhere
    )


def chosen(**values: Any) -> argparse.Namespace:
    """The options common to the model benchmarks as another script chooses them."""
    return argparse.Namespace(**vars(parser("").parse_args([])) | values)


def build_specialists(options: argparse.Namespace) -> list[Any]:
    """N separate random models."""
    from transformers import LlamaForCausalLM

    return [_placed(LlamaForCausalLM, specialist_config(options), options) for _ in range(options.specialists)]


def build_fused(options: argparse.Namespace) -> Any:
    """The fused model of the same N specialists."""
    from ultrafuser.model.configuration_ultrafuser import UltraFuserConfig
    from ultrafuser.model.modeling_ultrafuser import UltraFuserForCausalLM

    own = [specialist_config(options).to_dict()] * options.specialists
    return _placed(UltraFuserForCausalLM, UltraFuserConfig(specialists=own, gate_hidden_size=options.gate), options)


def specialists_of(fused: Any, options: argparse.Namespace) -> list[Any]:
    """The fused model's N specialists as separate models: layers and norms are the fused model's own, tables are copies."""
    from transformers import LlamaForCausalLM

    models = []
    for j in range(options.specialists):
        columns = slice(j * options.hidden, (j + 1) * options.hidden)
        model = _placed(LlamaForCausalLM, specialist_config(options), options, device="meta")
        model.model.rotary_emb = fused.model.rotary_embs[j]
        state = {
            "model.embed_tokens.weight": fused.model.embed_tokens.weight.detach()[:, columns].clone(),
            "model.norm.weight": fused.model.norms[j].weight,
            "lm_head.weight": fused.lm_head.weight.detach()[:, columns].clone(),
        }
        for i in range(options.layers):
            layer = fused.model.layers[j * options.layers + i]
            state |= {f"model.layers.{i}.{name}": tensor for name, tensor in layer.named_parameters()}
        model.load_state_dict(state, assign=True)
        models.append(model)
    return models


def build_gate(options: argparse.Namespace) -> Any:
    """A gate alone, for the naive version."""
    from ultrafuser.model.configuration_ultrafuser import UltraFuserConfig
    from ultrafuser.model.gate_ultrafuser import UltraFuserGate

    own = [specialist_config(options).to_dict()] * options.specialists
    return UltraFuserGate(UltraFuserConfig(specialists=own, gate_hidden_size=options.gate)).to(options.device)


def _placed(kind: Any, config: Any, options: argparse.Namespace, device: str | None = None) -> Any:
    """A model made where it is to be, in the precision it is to have: never whole in the host's memory."""
    import torch

    with torch.device(device or options.device):
        return kind._from_config(config, dtype=getattr(torch, options.dtype), attn_implementation="sdpa")


def token_batch(options: argparse.Namespace) -> Any:
    """(batch, tokens) random ids."""
    import torch

    return torch.randint(options.vocab, (options.batch, options.tokens), device=options.device)


def report(name: str, options: argparse.Namespace, results: dict[str, Any]) -> None:
    """Print the results, the settings and the machine as one JSON object."""
    facts = {"benchmark": name, **results, "settings": vars(options), "machine": machine(options.device)}
    print(json.dumps(facts, indent=2))


def machine(device: str) -> dict[str, Any]:
    """What a figure was measured on, and with which versions."""
    import torch
    import transformers

    return {
        "processor": torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
