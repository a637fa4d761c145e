"""The balanced sampler against a brute-force reference, alone and under Accelerate's own sharding."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard, prepare_data_loader, skip_first_batches
from torch.utils.data import BatchSampler, DataLoader

from ultrafuser.data.balance import BalancedSampler
from ultrafuser.errors import UserError

UNEVEN = np.array([0] * 5 + [2] * 17 + [1] * 3 + [0] * 4)  # domains of 9, 3 and 17 examples, not in order


def blocks(sampler):
    indices, size = list(sampler), sampler.global_batch_size
    return [indices[start : start + size] for start in range(0, len(indices), size)]


@pytest.mark.parametrize(("ids", "per_domain", "steps"), [(UNEVEN, 4, 11), (np.array([0, 0]), 3, 4), (np.arange(5), 1, 3)])
def test_every_block_is_balanced_and_every_pass_complete(ids, per_domain, steps):
    """Catches unequal domains, uneven reuse, and a pass that repeats or leaves out an example."""
    sampler = BalancedSampler(ids, per_domain=per_domain, steps=steps, seed=3)
    assert len(sampler) == len(list(sampler)) == steps * per_domain * len(set(ids))
    for block in blocks(sampler):
        assert Counter(ids[block].tolist()) == dict.fromkeys(set(ids.tolist()), per_domain)
    for domain in set(ids.tolist()):
        members = [index for index in range(len(ids)) if ids[index] == domain]
        read = [index for index in sampler if ids[index] == domain]
        for start in range(0, len(read) - len(members) + 1, len(members)):
            assert sorted(read[start : start + len(members)]) == members


def test_order_is_golden():
    """Catches any change of the order that a seed gives, which would break runs that are resumed after an upgrade."""
    sampler = BalancedSampler([0, 1, 0, 0, 1, 0, 0], per_domain=2, steps=3, seed=7)
    assert list(sampler) == [6, 4, 2, 1, 0, 4, 3, 1, 5, 4, 5, 1] == list(sampler)


def test_passes_differ_and_seeds_differ():
    """Catches one permutation being used for every pass, or for every seed."""
    ids = [0] * 40
    first = list(BalancedSampler(ids, per_domain=40, steps=2, seed=0))
    other = list(BalancedSampler(ids, per_domain=40, steps=1, seed=1))
    assert first[:40] != first[40:] and first[:40] != other and sorted(first[:40]) == sorted(other)
    both = list(BalancedSampler([0, 1] * 20, per_domain=20, steps=1, seed=0))
    assert [i // 2 for i in both[::2]] != [i // 2 for i in both[1::2]]


def test_another_domain_leaves_the_order_of_the_others():
    """Catches one random stream shared by the domains: adding a domain would reshuffle all."""
    before = BalancedSampler(UNEVEN, per_domain=4, steps=9, seed=5)
    wider = np.concatenate([UNEVEN, [3] * 6])
    after = [index for index in BalancedSampler(wider, per_domain=4, steps=9, seed=5) if wider[index] != 3]
    assert after == list(before)


def test_domains_alternate():
    """Catches blocks sorted by domain, whose micro-batches would each hold one domain only."""
    sampler = BalancedSampler(UNEVEN, per_domain=5, steps=4, seed=0)
    assert UNEVEN[list(sampler)].tolist() == [0, 1, 2] * 20


@pytest.mark.parametrize("step", [0, 1, 3, 11])
def test_passes_count_what_was_read(step):
    """Catches passes counted over all domains together, or of the batch rather than the domain's size."""
    sampler = BalancedSampler(UNEVEN, per_domain=4, steps=11, seed=0)
    read = Counter(UNEVEN[list(sampler)[: step * 12]].tolist())
    assert sampler.passes(step).tolist() == [read[0] / 9, read[1] / 3, read[2] / 17]


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_global_batches_do_not_depend_on_the_number_of_processes(world, accumulation, split):
    """Catches a step of all processes that is unbalanced, or that reads other examples than one process would."""
    sampler = BalancedSampler(UNEVEN, per_domain=4, steps=5, seed=1)  # 12 examples a step
    micro = 12 // accumulation // (1 if split else world)
    batches = BatchSampler(sampler, micro, drop_last=False)
    shards = [list(BatchSamplerShard(batches, world, process, split_batches=split)) for process in range(world)]
    assert {len(shard) for shard in shards} == {5 * accumulation}
    for step, expected in enumerate(blocks(sampler)):
        own = [shard[step * accumulation : (step + 1) * accumulation] for shard in shards]
        read = [index for micro_batches in own for batch in micro_batches for index in batch]
        assert Counter(read) == Counter(expected)
        assert Counter(UNEVEN[read].tolist()) == {0: 4, 1: 4, 2: 4}


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("skipped", [0, 1, 4, 9])
def test_skipping_batches_resumes_in_mid_epoch(world, skipped):
    """Catches an order that depends on where iteration starts: a resumed run would see other batches than an unbroken one."""
    examples = list(range(len(UNEVEN)))
    for process in range(world):
        sampler = BalancedSampler(UNEVEN, per_domain=4, steps=5, seed=1)
        loader = DataLoader(examples, batch_size=12 // world // 2, sampler=sampler, collate_fn=list)
        loader = prepare_data_loader(loader, num_processes=world, process_index=process)
        whole = list(loader)
        assert len(whole) == 10
        assert list(skip_first_batches(loader, skipped)) == whole[skipped:]


@pytest.mark.parametrize("option", ["per_domain", "steps", "seed"])
def test_bad_options_are_named(option):
    """Catches a zero or negative option that would give an empty or endless run."""
    options = {"per_domain": 2, "steps": 2, "seed": 0, option: -1}
    with pytest.raises(UserError, match=f"{option} is -1"):
        BalancedSampler([0, 1], **options)


@pytest.mark.parametrize("ids", [[], [0, 2], [1], [-1, 0], [[0], [1]]])
def test_bad_domain_ids_are_refused(ids):
    """Catches a domain without examples, which could never fill its share of a batch."""
    with pytest.raises(ValueError, match="domain_ids"):
        BalancedSampler(ids, per_domain=1, steps=1, seed=0)
