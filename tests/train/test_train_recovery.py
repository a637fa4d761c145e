"""Training that is killed, interrupted, changed half-way or shared by several processes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from training_world import (
    PATIENCE,
    QUIET,
    STAGES,
    conversations,
    ended,
    in_process,
    run_as_fsdp_rank,
    run_as_rank,
    run_ranks,
    run_training,
    weights,
)

from ultrafuser.errors import UserError
from ultrafuser.train import checkpoint
from ultrafuser.train.checkpoint import checkpoints, new_checkpoint
from ultrafuser.train.claim import read_facts
from ultrafuser.train.run import train
from ultrafuser.train.stage import Stage, TrainSettings
from ultrafuser.train.trainer import StageTrainer


@pytest.fixture(scope="module")
def uninterrupted(fused, tmp_path_factory):
    out = tmp_path_factory.mktemp("uninterrupted") / "out"
    assert ended([in_process(run_training, fused, out)]) == [0]
    return out


@pytest.fixture
def single_threaded():
    """This process computes as those of `in_process` do: with more threads sums are rounded otherwise."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def files(folder):
    """Every file's bytes, but for how fast the training was, which run it was and which versions it ran on."""
    facts = read_facts(folder / "training/settings.json")
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    lines = [json.loads(line) for line in found.pop("training/metrics.jsonl").splitlines()]
    del found["training/settings.json"]
    return found, facts, [{key: value for key, value in line.items() if key != "tokens_per_second"} for line in lines]


def die_at(event, *args):
    """Run the training, but SIGKILL this process at the ``event``-th time it touches the file system's order of things."""
    left = event

    def counted(function):
        def wrapper(*args, **kwargs):
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapper

    os.rename, os.fsync, shutil.rmtree = counted(os.rename), counted(os.fsync), counted(shutil.rmtree)
    run_training(*args)


def test_killed_at_any_moment_it_resumes_to_the_same_bits(fused, uninterrupted, tmp_path):
    """Catches half-written checkpoints that count, and state left out of them: moments, schedule, order of the data, history."""
    out, chance = tmp_path / "out", random.Random(0)
    for event in (3, 8, 5, 10, 6):  # in the middle of writing something; an undisturbed run has about 65 such events
        assert ended([in_process(die_at, event, fused, out)]) == [-signal.SIGKILL] and not out.exists()
    for _ in range(2):  # anywhere; on a fast machine it may be done by then
        process = in_process(run_training, fused, out)
        process.join(chance.uniform(0.1, 1.0))
        process.kill()
        process.join()
        if out.exists():
            break
    if not out.exists() or out.with_name("out.work").exists():
        assert ended([in_process(run_training, fused, out)]) == [0]
    assert files(out) == files(uninterrupted)
    assert {path.name for path in tmp_path.iterdir()} <= {"out", ".out.lock"}  # the lock's file if it was killed at its very end


def test_ctrl_c_saves_and_says_how_to_go_on(fused, uninterrupted, tmp_path, monkeypatch, capfd, single_threaded):
    """Catches an interrupt that loses the steps since the last checkpoint, or leaves the user without a word."""
    out, log = tmp_path / "out", StageTrainer.log

    def interrupted_log(self, logs, start_time=None):
        log(self, logs, start_time)
        if self.state.global_step == 3:
            signal.raise_signal(signal.SIGINT)

    settings = {"log_every": 1, "save_every": 100}
    with monkeypatch.context() as patch:
        patch.setattr(StageTrainer, "log", interrupted_log)
        with pytest.raises(KeyboardInterrupt):
            run_training(fused, out, STAGES, settings)
    assert "stopped and saved at step 4 of 6 of stage 'gate'; give the same command again to go on" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert [path.name for path in checkpoints(tmp_path / "out.work" / "1-gate")] == ["checkpoint-4"]
    run_training(fused, out, STAGES, settings)
    expected, found = weights(uninterrupted), weights(out)
    torch.testing.assert_close(found, expected)


def test_changed_settings_are_named_and_nothing_is_lost(fused, tmp_path):
    """Catches a run that goes on with other settings than it began with, and one that cannot be started anew."""
    out, work = tmp_path / "out", tmp_path / "out.work"
    stages = (Stage("gate", moves="gate", steps=2, per_domain=2),)
    run_training(fused, out, stages)
    left = json.loads((out / "training" / "settings.json").read_text())
    left.pop("versions")
    left["stages"]["gate"]["learning_rate"] = 1.0
    left["settings"]["seed"] = 3
    shutil.rmtree(out)
    work.mkdir()
    (work / "settings.json").write_text(json.dumps(left))
    with pytest.raises(
        UserError, match=r"stages\.gate\.learning_rate was 1\.0, is 2e-05; settings\.seed was 3, is 0.*--overwrite"
    ):
        run_training(fused, out, stages)
    assert json.loads((work / "settings.json").read_text()) == left
    run_training(fused, out, stages, {"overwrite": True})
    assert out.exists() and not work.exists()
    with pytest.raises(UserError, match="already exists"):
        run_training(fused, out, stages)


def test_a_checkpoint_counts_only_when_it_is_whole(tmp_path):
    """Catches a checkpoint that is seen before its last file is written, rotation that removes too much, leftovers in the way."""
    for step in (5, 10, 15):
        with new_checkpoint(tmp_path, step, keep=2, main=True, barrier=lambda: None) as staging:
            (staging / "state").write_text("x")
            assert step not in [int(path.name.split("-")[1]) for path in checkpoints(tmp_path)]
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-10", "checkpoint-15"]
    with pytest.raises(OSError), new_checkpoint(tmp_path, 20, keep=2, main=True, barrier=lambda: None):
        raise OSError
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-10", "checkpoint-15"]
    for half in (15, 20):  # killed while one was removed, or written
        (tmp_path / f".checkpoint-{half}.part" / "state").mkdir(parents=True)
    checkpoint.remove_checkpoints(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_process_that_does_not_end_is_killed_and_told():
    """Catches a test that says only that None is not 0, and leaves running what it waited for."""
    process = in_process(time.sleep, 1000)
    with pytest.raises(AssertionError, match=r"Process-\d+ did not end in 0\.1 s"):
        ended([process], patience=0.1)
    assert process.exitcode == -signal.SIGKILL
    assert ended([in_process(time.sleep, 1000), in_process(os._exit, 3)]) == [-signal.SIGKILL, 3]  # at once, not after 1000 s


def test_two_processes_train_what_one_does(fused, uninterrupted, tmp_path):
    """Catches gradients averaged over processes instead of tokens, and batches shared unevenly."""
    out = tmp_path / "out"
    assert run_ranks(run_as_rank, fused, out, STAGES, {"micro_batch_size": 2}) == [0, 0]
    expected, found = weights(uninterrupted), weights(out)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for one, two in zip(files(uninterrupted)[2], files(out)[2], strict=True):
        assert one.pop("stage") == two.pop("stage")
        assert one == pytest.approx(two, rel=1e-3)
    assert not list(tmp_path.glob("*.work"))


@pytest.mark.slow
def test_two_processes_sharded_by_fsdp2(fused, uninterrupted, tmp_path):
    """Catches an lm_head used while sharded, tables left empty where no weights are read, state lost on resuming."""
    out, settings = tmp_path / "out", {"mixed_precision": "no"}

    def has_checkpoint():
        return any(tmp_path.glob("out.work/2-joint/checkpoint-*/pytorch_model_fsdp_0"))

    assert run_ranks(run_as_fsdp_rank, fused, out, STAGES, settings, kill_when=has_checkpoint) == [-signal.SIGKILL] * 2
    assert run_ranks(run_as_fsdp_rank, fused, out, STAGES, settings) == [0, 0]
    torch.testing.assert_close(weights(out), weights(uninterrupted), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_accelerate_launch(fused, uninterrupted, tmp_path):
    """As above, by the real launcher: catches a difference between its environment and the one made by hand."""
    script = tmp_path / "script.py"
    paths = [path for path in sys.path if "tests" in path]
    call = f"run_training({str(fused)!r}, {str(tmp_path / 'out')!r}, STAGES, {{'micro_batch_size': 2}})"
    script.write_text(f"import sys; sys.path[:0] = {paths!r}\nfrom training_world import *\n{call}\n")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--main_process_port", "0"]
    with subprocess.Popen([*command, str(script)]) as launcher:
        try:
            assert launcher.wait(PATIENCE) == 0
        finally:
            launcher.terminate()  # it ends those that it has started
    torch.testing.assert_close(weights(tmp_path / "out"), weights(uninterrupted), rtol=1e-4, atol=1e-5)


def test_full_disk_is_said_in_one_line(fused, tmp_path, monkeypatch):
    """Catches a traceback, or a half-written output, when the disk fills up."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(UserError, match=r"needs .* on disk"):
        train(fused, conversations(), tmp_path / "out", stages=STAGES, settings=TrainSettings(**QUIET))
    assert not (tmp_path / "out").exists()
