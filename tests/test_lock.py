"""One process at a time, however the one before ended."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ultrafuser.errors import UserError
from ultrafuser.lock import only_one

HOLDS = """
import sys, time
from pathlib import Path
from ultrafuser.lock import only_one
with only_one("run", Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("inside", [False, True])
def test_second_is_refused_and_nothing_stays(tmp_path, inside):
    """Catches a lock that refuses nobody, one that is never free again, and a file that stays behind."""
    place = tmp_path / "out"
    place.mkdir()
    for _ in range(2):
        with only_one("run", place, inside=inside):
            told = "out: another run is going on there; wait for its end or choose another output"
            with pytest.raises(UserError, match=told), only_one("run", place, inside=inside):
                pass
            with only_one("run", tmp_path / "other"):
                pass
            assert len([*place.iterdir()]) == inside
        assert [*tmp_path.iterdir()] == [place] and not any(place.iterdir())


def test_a_block_that_fails_lets_go(tmp_path):
    """Catches a place that stays taken after a mistake or Ctrl-C."""
    with pytest.raises(KeyboardInterrupt), only_one("run", tmp_path / "out"):
        raise KeyboardInterrupt
    with only_one("run", tmp_path / "out"):
        pass
    assert not any(tmp_path.iterdir())


def test_a_killed_process_lets_go(tmp_path):
    """Catches a lock by the mere existence of a file: after SIGKILL nobody could ever go on."""
    place = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", HOLDS, str(place)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        try:
            with pytest.raises(UserError, match="another run is going on there"), only_one("run", place):
                pass
        finally:
            process.kill()
    assert [file.name for file in tmp_path.iterdir()] == [".out.lock"]
    with only_one("run", place):
        pass
    assert not any(tmp_path.iterdir())


def test_place_where_nothing_can_be_written(tmp_path):
    """Catches a traceback where the file cannot be made."""
    (tmp_path / ".out.lock").mkdir()
    told = r"out: cannot be written \(\.out\.lock: .+\); choose another output"
    with pytest.raises(UserError, match=told), only_one("run", tmp_path / "out"):
        pass
