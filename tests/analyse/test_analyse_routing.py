"""Gate statistics against sums written out by hand."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from ultrafuser.analyse.routing import entropy, is_right, near_border, sample_means, summarise
from ultrafuser.analyse.trace import TokenTrace

NAMES = ["text", "code", "math"]


def trace(domain, weights, labels=None):
    rows = np.array(weights, dtype=np.float32)
    return TokenTrace(domain, "question", [f"t{i}" for i in range(len(rows))], rows, labels)


TEXT, CODE, EVEN = [0.8, 0.1, 0.1], [0.1, 0.7, 0.2], [0.3, 0.3, 0.4]
TRACES = [
    trace("text", [TEXT, TEXT, CODE]),
    trace("text", [TEXT]),
    trace("mixed", [TEXT, CODE, CODE, EVEN, EVEN, TEXT], ["text", "text", "code", "code", "math"]),
]


def test_means_are_over_tokens():
    """The longer answer counts more: catches a mean of means, and specialists mixed up."""
    routing = summarise(TRACES, NAMES)
    assert [mean.value for mean in routing.weights["text"]] == pytest.approx([2.5 / 4, 1.0 / 4, 0.5 / 4])
    assert routing.weights["text"][0].n == 4
    assert list(routing.weights) == ["text", "mixed"]
    assert sample_means(TRACES[0]) == pytest.approx([1.7 / 3, 0.9 / 3, 0.4 / 3])


def test_gating_accuracy():
    """Per token labels, not the conversation's; the unlabelled end token is not judged."""
    routing = summarise(TRACES, NAMES)
    assert routing.accuracy["text"].value == pytest.approx(3 / 4)
    assert is_right(TRACES[2], NAMES) == [True, False, True, False, True, None]
    assert routing.accuracy["mixed"].value == pytest.approx(3 / 5)
    assert routing.accuracy["mixed"].n == 5


def test_borders():
    """Only the tokens on both sides of a change of label: labels change before token 2 and before token 4."""
    assert near_border(TRACES[2]).tolist() == [False, True, True, True, True, False]
    assert near_border(TRACES[2], 2).tolist() == [True, True, True, True, True, True]
    assert not near_border(TRACES[0]).any()
    routing = summarise(TRACES, NAMES)
    assert list(routing.border) == ["mixed"]
    assert routing.border["mixed"].value == pytest.approx(2 / 4)


def test_domains_without_a_specialist():
    """A domain that no specialist is named after has weights but no accuracy, rather than an accuracy of 0."""
    routing = summarise([trace("law", [TEXT]), trace("law", []), trace("empty", np.zeros((0, 3)))], NAMES)
    assert list(routing.weights) == ["law"] and not routing.accuracy and not routing.border


def test_entropy():
    """In nats; a weight of exactly 0 adds nothing instead of NaN."""
    found = entropy(np.array([[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]], dtype=np.float32))
    assert found == pytest.approx([0, math.log(3), math.log(2)], abs=1e-6)


def test_the_dictionary_is_plain_json():
    """Catches numbers or pairs that JSON does not have, and a statistic left out."""
    routing = summarise(TRACES, NAMES)
    assert json.loads(json.dumps(routing.to_dict()))["border"]["mixed"]["n"] == 4
