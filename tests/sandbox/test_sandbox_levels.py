"""Which level of isolation is chosen, and which programs may run at it."""

from __future__ import annotations

import contextlib
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator

import pytest

from ultrafuser.errors import UserError
from ultrafuser.sandbox import (
    FunctionCalls,
    Limits,
    Programs,
    TestedProgram,
    call_functions,
    levels,
    programs,
    run_program,
    run_tests,
    tested,
)
from ultrafuser.sandbox.levels import LEVELS, VARIABLE
from ultrafuser.sandbox.process import Sandbox


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Levels are tried anew, warnings given anew, and the environment asks for nothing."""
    monkeypatch.delenv(VARIABLE, raising=False)
    for function in (levels.warn_of_limits, levels.works):
        function.cache_clear()
    yield
    monkeypatch.undo()
    levels.works.cache_clear()


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has the machine offer these levels and no other."""

    def offer(*working: str) -> None:
        monkeypatch.setattr(levels, "works", lambda level: level in working)

    return offer


@pytest.mark.parametrize(
    ("working", "expected"),
    [
        ({"bubblewrap", "namespaces", "landlock", "limits"}, "bubblewrap"),
        ({"namespaces", "landlock", "limits"}, "namespaces"),
        ({"landlock", "limits"}, "landlock"),
        ({"limits"}, "limits"),
        (set(), None),
    ],
)
def test_the_best_level_is_taken(working: set[str], expected: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a wrong order, and trying out levels again for every program."""
    tried: list[str] = []

    class Trial(contextlib.nullcontext["Trial"]):
        def __init__(self, level: str, *_: object) -> None:
            super().__init__(self)
            tried.append(level)

        def report(self, seconds: float) -> dict[str, bool]:
            return {"ended": tried[-1] in working}

    monkeypatch.setattr(levels, "Sandbox", Trial)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    assert [levels.isolation() for _ in range(3)] == [expected] * 3
    assert len(tried) == len(set(tried))


def test_a_level_is_not_given_up_on_a_busy_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a weaker level being used, or programs refused, since the trial of a better one was held up for half a minute."""

    class HeldUp(contextlib.nullcontext["HeldUp"]):
        def __init__(self, level: str, limits: Limits, job: object) -> None:
            super().__init__(self)
            self.wall_seconds = limits.wall_seconds

        def report(self, seconds: float) -> dict[str, bool]:
            return {"ended": min(seconds, self.wall_seconds) > 30}

    monkeypatch.setattr(levels, "Sandbox", HeldUp)
    assert levels.works("limits")


READING = "where they could read your files"
OPEN = f"only reaches level 'limits', {READING}; install bubblewrap, .* set ULTRAFUSER_SANDBOX=limits "
WEAKER = "only reaches level 'landlock', and ULTRAFUSER_SANDBOX asks for 'namespaces'; .* set ULTRAFUSER_SANDBOX=landlock "
UNKNOWN = "ULTRAFUSER_SANDBOX: no level is called 'limit'; did you mean 'limits'.* [(]known: bubblewrap, "


@pytest.mark.parametrize(
    ("programs", "asked", "offered", "outcome"),
    [
        ("full", None, "namespaces", "namespaces"),
        ("full", None, "landlock", "landlock"),
        ("full", None, "limits", OPEN),
        ("full", "", "limits", OPEN),
        ("full", "limits", "limits", "limits"),
        ("full", "limits", "landlock", "landlock"),
        ("full", "bubblewrap", "bubblewrap", "bubblewrap"),
        ("full", "namespaces", "bubblewrap", "bubblewrap"),
        ("full", "namespaces", "landlock", WEAKER),
        ("full", "landlock", "limits", OPEN),
        ("restricted", None, "limits", "limits"),
        ("restricted", None, "bubblewrap", "bubblewrap"),
        ("restricted", "landlock", "limits", OPEN),
        ("full", "limit", "bubblewrap", UNKNOWN),
        ("restricted", "limit", None, UNKNOWN),
        ("full", "limits", None, "cannot be run here"),
        ("restricted", None, None, "cannot be run here"),
    ],
)
@pytest.mark.filterwarnings("ignore:generated programs run under limits only")
def test_which_programs_run_at_which_level(
    programs: Programs,
    asked: str | None,
    offered: str | None,
    outcome: str,
    only: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Catches a program that runs at too weak a level, is refused at one that is enough, or a refusal that does not help."""
    only(*LEVELS[LEVELS.index(offered) :] if offered else ())
    if asked is not None:
        monkeypatch.setenv(VARIABLE, asked)
    if outcome in LEVELS:
        assert levels.require_level(programs) == outcome
        return
    with pytest.raises(UserError, match=outcome) as caught:
        levels.require_level(programs)
    assert "\n" not in str(caught.value)


SPY = "print(open('/etc/passwd').read())"


def test_full_programs_do_not_even_start_without_isolation(only: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a way to run a program by which it could read our files."""
    only("limits")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for module in programs, tested:
            monkeypatch.setattr(module, "Sandbox", None)
        for start in (lambda: run_program(SPY), lambda: run_tests([TestedProgram(SPY, "")])):
            with pytest.raises(UserError, match=READING):
                start()


def test_restricted_programs_run_without_isolation(only: Callable[..., None]) -> None:
    """Catches the generated world needing rights or a permission, and restricted programs that reach files all the same."""
    only("limits")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert call_functions([FunctionCalls("def f(x):\n    return x + 1", "f", [[1]])]) == [[2]]
        assert run_program("print('well')", imports=[]).stdout == "well\n"
        assert "NameError: name 'open' is not defined" in run_program(SPY, imports=[]).stderr


def test_a_permission_is_warned_of_once(only: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a permission that is not respected, or that lets programs read our files without a word."""
    only("limits")
    monkeypatch.setenv(VARIABLE, "limits")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [run_program("print('well')").stdout for _ in range(2)] == ["well\n"] * 2
        assert run_tests([TestedProgram("def f(): pass", "f()")])[0].passed
    assert ["They can read what we can read" in str(one.message) for one in caught] == [True]


def test_other_systems_have_no_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a crash of the trial, instead of the line that says so, where there is no Linux."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert levels.isolation() is None


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
