"""Which domains are doubted, over counts as they occur."""

from __future__ import annotations

import pytest

from ultrafuser.data.domains import doubtful_domains

EVEN = {"text": 24, "code": 24, "math": 24}


def doubts(counts, reads=1000, **options):
    return list(doubtful_domains(counts, reads, **options))


def test_a_slip_in_a_name():
    """Catches a mistyped domain that silently takes a quarter of every batch, and names that were chosen or are used, doubted."""
    assert doubts(EVEN | {"maths": 1}) == [
        "domain 'maths' (1 example) is one of 4 with equal shares of every batch; did you mean 'math'?"
    ]
    assert doubts({"math ": 3} | EVEN)[0].endswith("did you mean 'math'?")
    assert doubts(EVEN | {"maths": 20}) == []  # as large as the others: two domains, whatever they are called
    assert not any("did you mean" in doubt for doubt in doubts(EVEN | {"maths": 1}, chosen=True))


@pytest.mark.parametrize("chosen", [False, True])
def test_few_examples(chosen):
    """Catches a tiny domain read a thousand times over unsaid, and small ones doubted that no training wears out."""
    counts = {"text": 1000, "code": 400, "proofs": 40}
    assert doubts(counts, reads=2000, chosen=chosen) == [
        "domain 'proofs' has only 40 examples: training reads each 50 times, those of the other domains 2.9 times; "
        "add some or leave the domain out"
    ]
    assert doubts(counts, reads=399, chosen=chosen) == []
    assert doubts(counts | {"proofs": 71}, reads=2000, chosen=chosen) == []
    assert doubts({"text": 1}, chosen=chosen) == []
    assert doubts({"text": 300_000, "code": 100_000, "math": 60_000}, reads=185_600, chosen=chosen) == []
