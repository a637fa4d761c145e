"""A disk that is really full: a small tmpfs in a user and mount namespace of its own, where the kernel allows that.

Before writing, the free space is looked at. That a disk fills up in the meantime is played by a look that always finds plenty.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tiny import tiny_specialist
from ultrafuser.model.fuse import FuseOptions, fuse

MOUNT = 'mount -t tmpfs -o size="$0" tmpfs disk && "$@"; code=$?; find disk -mindepth 1; exit $code'
COMMAND = "import sys; sys.argv[0] = 'ultrafuser'; from ultrafuser.cli import main; main()"
PLENTY = "import shutil; shutil.disk_usage = lambda path: shutil._ntuple_diskusage(2**40, 0, 2**40); " + COMMAND
FULL = "the disk is full; nothing was written. Free some space or choose another output"


def in_namespace(script: str, *args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["unshare", "-Urm", "sh", "-c", script, *args], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where there are specialists a and b, a fused model, training data, and ``disk``, to be mounted on."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "disk").mkdir()
    try:
        if in_namespace(MOUNT, "100k", "true", cwd=folder).returncode:
            pytest.skip("no tmpfs can be mounted here")
    except FileNotFoundError:
        pytest.skip("needs unshare")
    own = [tiny_specialist(folder / name, seed=seed, template=("user", "inst")[seed]) for seed, name in enumerate("ab")]
    fuse(own, folder / "fused", options=FuseOptions(gate_hidden_size=8))
    question = {"id": "g", "prompt": "How many words are there in this short question?", "response": "Nine.", "answer": "9"}
    (folder / "gsm8k_test.jsonl").write_text(json.dumps(question) + "\n")
    records = [{"domain": "ab"[n % 2], "prompt": f"What is {n} and {n * 3}?", "response": f"It is {n * 4}"} for n in range(4000)]
    (folder / "train.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


DECONTAMINATE = "decontaminate train.jsonl --against gsm8k --data-dir . --out disk/out.jsonl"


@pytest.mark.parametrize(
    ("size", "code", "typed", "told"),
    [
        ("200k", PLENTY, "fuse a b --out disk/out --gate-hidden-size 8", f"disk/out: {FULL}"),
        ("60k", COMMAND, DECONTAMINATE, f"disk/out.jsonl: {FULL}"),
        pytest.param("200k", COMMAND, "fuse a b --out disk/out", "disk/out: needs 1", marks=pytest.mark.slow),
        pytest.param("60k", PLENTY, "extract fused --specialist a --out disk/out", f"disk/out: {FULL}", marks=pytest.mark.slow),
    ],
    ids=["fuse", "decontaminate", "fuse-refused", "extract"],
)
def test_one_line_and_nothing_left(place: Path, size: str, code: str, typed: str, told: str) -> None:
    """Catches a traceback, another exit code, or parts of files on a disk that had too little room for them."""
    done = in_namespace(MOUNT, size, sys.executable, "-c", code, *typed.split(), cwd=place)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert done.stderr.startswith(f"error: {told}")


def test_a_run_is_interrupted(place: Path) -> None:
    """Catches a line of another kind, without what to do, where a run of a recipe fills the disk, and half a checkpoint left."""
    done = in_namespace(MOUNT, "300k", sys.executable, "-c", PLENTY, *["demo", "--fast", "--out", "disk/demo"], cwd=place)
    line = "error: disk/demo.work: the disk is full; free some space, then give the same command again to go on"
    assert done.returncode == 2 and done.stderr.splitlines()[-1] == line and "Traceback" not in done.stderr
    assert "disk/demo.work" in done.stdout and ".part" not in done.stdout


@pytest.mark.slow
def test_training_goes_on_when_there_is_room(place: Path) -> None:
    """Catches a traceback from torch or safetensors, which tell a full disk in their own ways, and work lost by it."""
    script = 'mount -t tmpfs -o size=36k tmpfs disk && "$0" "$@"; code=$?; ls -A disk/* >&2; [ $code = 2 ] || exit 1; '
    script += '[ -z "$(find disk -name "*.part")" ] || exit 1; '
    script += 'echo "--- more room" >&2; mount -o remount,size=9m disk && "$0" "$@"'
    typed = "train fused --data train.jsonl --out disk/out --moves gate --steps 3 --per-domain 1 --save-every 1 --max-length 64"
    done = in_namespace(script, sys.executable, "-c", PLENTY, *typed.split(), cwd=place)
    first, _, second = done.stderr.partition("--- more room\n")
    assert "error: disk/out.work: the disk is full; free some space, then give the same command again to go on\n" in first
    assert "Traceback" not in done.stderr and "settings.json" in first
    assert (done.returncode, done.stdout) == (0, "wrote disk/out\n"), second
