"""Tiny models and data, made once for all tests of evaluate/."""

from __future__ import annotations

import pytest
from evaluation_world import make_data, make_models


@pytest.fixture(scope="session")
def trio(tmp_path_factory):
    """Directories of three specialists and of the model fused from them, by name."""
    return make_models(tmp_path_factory.mktemp("trio"))


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """A data directory of a few questions."""
    return make_data(tmp_path_factory.mktemp("data") / "data")
