"""One tiny fused model for all tests of training."""

from __future__ import annotations

import pytest
from training_world import make_fused


@pytest.fixture(scope="session")
def fused(tmp_path_factory):
    return make_fused(tmp_path_factory.mktemp("fused"))
