"""Which level of isolation is chosen."""

from __future__ import annotations

import shutil
import warnings

import pytest

from ultrafuser.errors import UserError
from ultrafuser.sandbox import Limits, levels, run_program
from ultrafuser.sandbox.process import Sandbox


@pytest.fixture(autouse=True)
def forget() -> None:
    levels.isolation.cache_clear()


@pytest.mark.parametrize(
    ("working", "expected"),
    [
        ({"bubblewrap", "namespaces", "landlock"}, "bubblewrap"),
        ({"namespaces", "landlock"}, "namespaces"),
        ({"landlock"}, "landlock"),
        (set(), "limits"),
    ],
)
def test_the_best_level_is_taken_and_a_weak_one_warned_of_once(
    working: set[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a wrong order, a missing or repeated warning, and trying out levels again for every program."""
    tried: list[str] = []
    monkeypatch.setattr(levels, "works", lambda level: tried.append(level) or level in working | {"limits"})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [levels.isolation() for _ in range(3)] == [expected] * 3
    assert len(tried) == len(set(tried)) and len(caught) == (expected == "limits")


def test_where_not_even_limits_work_programs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches every program being judged wrong on a machine where none can run."""
    monkeypatch.setattr(levels, "works", lambda level: False)
    with pytest.raises(UserError, match="cannot be run here"):
        levels.isolation()


def test_bubblewrap_that_is_missing_or_broken_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a program that is said to be isolated by a bubblewrap that cannot do it."""
    for found in None, shutil.which("false"):
        levels.works.cache_clear()
        monkeypatch.setattr(shutil, "which", lambda name, found=found: found)
        assert not levels.works("bubblewrap")
    levels.works.cache_clear()


@pytest.mark.parametrize("claimed", ["bubblewrap", "namespaces", "landlock"])
def test_a_trial_that_finds_itself_unprotected_fails(claimed: str) -> None:
    """Catches a trial that lets any level through: it must fail where there are limits only."""
    with Sandbox("limits", Limits(), {"role": "program", "source": levels.TRIALS[claimed], "imports": None}) as sandbox:
        assert [report["ended"] for report in sandbox.reports(5.0)] == [False]


def test_programs_run_at_every_level(level: str) -> None:
    """Catches a level that works in its trial only."""
    assert run_program("print('well')").stdout == "well\n"
