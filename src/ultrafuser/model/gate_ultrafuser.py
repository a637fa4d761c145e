"""The gate that weighs the specialists for every token: paper, section 2, equation 1. Copied into every saved checkpoint."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .configuration_ultrafuser import UltraFuserConfig


class UltraFuserGate(nn.Module):
    """The gate: one scalar per specialist from its last hidden state, by one network shared by all (paper, equation 1).

    Two linear layers with a ReLU between. Specialists of unlike width get a projection each to the widest. The arithmetic
    is float32 whatever the model's dtype: a softmax of bfloat16 scores moves the mix by per cents.
    """

    def __init__(self, config: UltraFuserConfig) -> None:
        super().__init__()
        widths = [own.hidden_size for own in config.specialist_configs()]
        if len(set(widths)) > 1:
            self.input_projections = nn.ModuleList(
                [nn.Linear(width, max(widths), bias=False, dtype=torch.float32) for width in widths]
            )
        self.linear_in = nn.Linear(max(widths), config.gate_hidden_size, dtype=torch.float32)
        self.linear_out = nn.Linear(config.gate_hidden_size, 1, dtype=torch.float32)

    def forward(self, states: list[torch.Tensor]) -> torch.Tensor:
        """N normalised last hidden states (B, T, H_j) -> weights (B, T, N), float32, summing to one."""
        with torch.autocast(device_type=states[0].device.type, enabled=False):
            scores = [self._score(j, state.float()) for j, state in enumerate(states)]  # N x (B, T, 1)
            return torch.cat(scores, dim=-1).softmax(dim=-1)

    def _score(self, j: int, state: torch.Tensor) -> torch.Tensor:
        if hasattr(self, "input_projections"):
            state = F.linear(state, self.input_projections[j].weight.float())
        inner = F.relu(F.linear(state, self.linear_in.weight.float(), self.linear_in.bias.float()))
        return F.linear(inner, self.linear_out.weight.float(), self.linear_out.bias.float())
