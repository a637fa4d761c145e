"""What is measured while training: loss, gate weights and gate entropy per domain, tokens per second.

Mean gate weights per domain are the paper's table 6, seen as they come about. A gate that gives nearly all weight in every domain
to one specialist has collapsed: the others get hardly any gradient (it is scaled by their weight), so this does not mend itself.
The same goes for one specialist that gets none anywhere.

Notation: B batch, T tokens, D domains, N specialists.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import torch

from ultrafuser.data.dataset import IGNORED

COLLAPSED, NEGLECTED = 0.95, 0.01  # mean weight in every domain: above the first, below the second


class MetricWindow:
    """Sums over the answer tokens seen since the last log line, kept on the device so that no step waits for them."""

    def __init__(self, domains: Sequence[str], specialists: Sequence[str], device: torch.device):
        self.domains, self.specialists = list(domains), list(specialists)
        # One row per domain: loss, answer tokens, gate entropy, one weight per specialist. The last row: all tokens.
        self.sums = torch.zeros(len(self.domains) + 1, 3 + len(self.specialists), dtype=torch.float64, device=device)
        self.started: float | None = None

    def start_clock(self) -> None:
        """Speed counts from here, unless it does already."""
        if self.started is None:
            self.started = time.perf_counter()

    def stop_clock(self) -> None:
        """What takes time until the next `start_clock` is not the model's."""
        self.started = None

    @torch.no_grad()
    def add(
        self,
        domain_ids: torch.Tensor,
        labels: torch.Tensor,
        token_losses: torch.Tensor,
        gate_weights: torch.Tensor | None,
        tokens: torch.Tensor,
    ) -> None:
        """Add one batch: domain_ids (B,), labels (B, T), token_losses (B, T), gate_weights (B, T, N), tokens a count."""
        answers = labels[:, 1:] != IGNORED  # (B, T-1)
        columns = [token_losses[:, 1:].double() * answers, answers.double()]
        if gate_weights is not None:
            weights = gate_weights[:, :-1].double() * answers[..., None]  # those at position t-1 predict token t
            columns += [torch.special.entr(weights).sum(-1), *weights.unbind(-1)]
        rows = torch.stack([column.sum(1) for column in columns], dim=1)  # (B, 2) or (B, 3+N)
        self.sums[:, : rows.shape[1]].index_add_(0, domain_ids, rows)
        self.sums[-1, 0] += tokens

    def drain(self, add_up: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
        """The window's means, over all processes (``add_up`` sums a tensor over them), and start a new window."""
        sums = add_up(self.sums.clone()).cpu()
        now = time.perf_counter()
        seconds = math.inf if self.started is None else now - self.started
        result = {"tokens_per_second": float(sums[-1, 0]) / max(seconds, 1e-9)}
        self.started = now
        self.sums.zero_()
        counts = sums[:-1, 1]
        means = (sums[:-1] / counts.clamp(min=1)[:, None]).tolist()
        for domain, (loss, _, entropy, *weights), count in zip(self.domains, means, counts.tolist(), strict=True):
            if not count:
                continue
            result[f"loss/{domain}"] = loss
            if weights:
                result[f"gate_entropy/{domain}"] = entropy
                result |= {f"gate/{domain}/{name}": weight for name, weight in zip(self.specialists, weights, strict=True)}
        if self.specialists:
            result["gate_entropy"] = float(sums[:-1, 2].sum() / counts.sum().clamp(min=1))
        return result


def gate_doubt(metrics: dict[str, float], domains: Sequence[str], specialists: Sequence[str]) -> str | None:
    """What to tell of a gate that neglects specialists in every domain; nothing of one domain alone, which may need but one."""
    if len(domains) < 2 or len(specialists) < 2:
        return None
    keys = {name: [f"gate/{domain}/{name}" for domain in domains] for name in specialists}
    if not all(key in metrics for row in keys.values() for key in row):
        return None  # a domain has no figures yet
    weights = {name: [metrics[key] for key in row] for name, row in keys.items()}
    cure = "Train the gate longer alone, with a lower learning rate, or check the specialists"
    for name, row in weights.items():
        if min(row) > COLLAPSED:
            others = "the other specialists get hardly any gradient"
            return f"the gate has collapsed onto '{name}' (above {COLLAPSED:.0%} in every domain); {others}. {cure}"
    if len(domains) >= len(specialists) and (gone := [name for name, row in weights.items() if max(row) < NEGLECTED]):
        names = ", ".join(f"'{name}'" for name in gone)
        return f"the gate gives {names} below {NEGLECTED:.0%} in every domain: hardly any gradient. {cure}"
    return None
