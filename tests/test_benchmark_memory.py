"""benchmarks/_memory.py: what a benchmark's process holds, and not what the process that started it once held."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ultrafuser.model.fuse

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import fuse_vs_cp
from _memory import host_memory

SIZE = 200 * 2**20
pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="what a process holds now is told by /proc only")
CHILD = "from _memory import host_memory; held = bytearray({size}); del held; print(host_memory('VmRSS'), host_memory('VmHWM'))"


def test_a_childs_peak_is_its_own():
    """Catches a peak that counts the parent's, under which all that a smaller child takes is hidden."""
    ours = bytearray(SIZE)
    command = [sys.executable, "-S", "-c", CHILD.format(size=SIZE // 4)]
    child = subprocess.run(command, cwd=Path(fuse_vs_cp.__file__).parent, check=True, capture_output=True, text=True)
    now, peak = map(int, child.stdout.split())
    assert host_memory("VmHWM") >= len(ours) and now < SIZE // 5 < SIZE // 4 <= peak < SIZE // 2


def test_what_fusing_takes_is_counted_from_what_was_held_before(tmp_path, monkeypatch):
    """Catches a difference of two peaks: it is nothing in a process whose peak lies in its past, or in its parent's."""
    assert len(bytearray(2 * SIZE))  # that past
    monkeypatch.setattr(ultrafuser.model.fuse, "fuse", lambda *_, **__: bytearray(SIZE))
    assert fuse_vs_cp.fuse_here(tmp_path)["extra_memory_mb"] >= SIZE / 1e6
