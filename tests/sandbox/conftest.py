"""Every test that takes ``level`` runs at each level of isolation that this machine offers."""

from __future__ import annotations

import os

import pytest

from ultrafuser.sandbox import levels
from ultrafuser.sandbox.levels import LEVELS, VARIABLE

UNWARNED = pytest.param("limits", marks=pytest.mark.filterwarnings("ignore:generated programs run under limits only"))


@pytest.fixture(params=[*LEVELS[:-1], UNWARNED])
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if not levels.works(request.param):
        pytest.skip(f"{request.param} does not work on this machine")
    monkeypatch.setattr(levels, "works", lambda level: level == request.param)
    monkeypatch.setenv(VARIABLE, request.param)
    return request.param


@pytest.fixture
def isolated(level: str) -> str:
    """The levels at which a program reaches no file of ours."""
    if level == "limits":
        pytest.skip("limits do not stop this, as the package's docstring says")
    return level


@pytest.fixture
def other_user(level: str) -> str:
    """The levels at which a program cannot touch our processes: as root "limits" is one, since it gives up being root."""
    if level == "limits" and os.geteuid() != 0:
        pytest.skip("limits do not stop this for an ordinary user, as the package's docstring says")
    return level
