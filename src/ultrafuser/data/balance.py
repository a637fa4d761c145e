"""The class-balanced sampler: the same number of examples of every domain in every global batch (paper, section 3).

It is an ordinary stream of indices, so a `DataLoader`, the Trainer and Accelerate shard it as they shard any other. Batches of
m examples are dealt to W processes in turn, G of them per step; whenever m * G * W = per_domain * D, one step of all
processes together reads exactly one block of the stream, whatever W is. Inside a block domains alternate, so micro-batches
are as even as they can be. Notation: D domains, E examples.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from ultrafuser.errors import UserError


class BalancedSampler(Sampler[int]):
    """``steps`` blocks of ``per_domain * D`` example indices, each with exactly ``per_domain`` of every domain.

    ``domain_ids`` (E,) are integers 0..D-1. Every domain is shuffled on its own; one that runs out starts its next shuffled
    pass, so it may hold an example twice in a block. The order depends on nothing but ``seed``, the domain's id and how many
    examples it has: iterating again gives it again, and skipping the batches already done resumes in mid-epoch. ``len()`` is
    the number of indices. Raises `UserError` for a bad option, `ValueError` for bad ``domain_ids``.
    """

    def __init__(self, domain_ids: Sequence[int] | NDArray[np.integer], *, per_domain: int, steps: int, seed: int) -> None:
        for option, value, least in (("per_domain", per_domain, 1), ("steps", steps, 1), ("seed", seed, 0)):
            if value < least:
                raise UserError(f"{option} is {value}; it must be at least {least}")
        ids = np.asarray(domain_ids)
        present = np.unique(ids)
        if ids.ndim != 1 or not len(ids) or not np.array_equal(present, np.arange(len(present))):
            raise ValueError(f"domain_ids must be one-dimensional and use every id from 0 on, not {present.tolist()}")
        self.per_domain, self.steps, self.seed = per_domain, steps, seed
        self._members = [np.flatnonzero(ids == domain_id) for domain_id in present]  # D arrays of example indices

    @property
    def global_batch_size(self) -> int:
        """Examples of one block, ``per_domain * D``."""
        return self.per_domain * len(self._members)

    def __len__(self) -> int:
        return self.steps * self.global_batch_size

    def __iter__(self) -> Iterator[int]:
        streams = [self._endless(domain_id) for domain_id in range(len(self._members))]
        for _ in range(self.steps * self.per_domain):
            for stream in streams:
                yield next(stream)

    def passes(self, step: int) -> NDArray[np.float64]:
        """How many times each domain's examples have been read after ``step`` steps: (D,) float64, 1.5 is one and a half."""
        sizes = np.array([len(members) for members in self._members])
        return step * self.per_domain / sizes

    def _endless(self, domain_id: int) -> Iterator[int]:
        members = self._members[domain_id]
        for number in itertools.count():
            # RandomState, unlike Generator, is promised never to change: a seed gives the same order under every numpy
            random = np.random.RandomState(np.random.MT19937(np.random.SeedSequence((self.seed, domain_id, number))))
            yield from members[random.permutation(len(members))].tolist()
