"""Training warns of data that nobody has checked for test data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from training_world import QUIET, conversations

from ultrafuser.decontaminate import write_checked
from ultrafuser.train.run import train
from ultrafuser.train.stage import Stage, TrainSettings


def test_unchecked_files_are_warned_of(fused: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Catches a training run on unchecked files that says nothing, and a warning of checked ones or of no files at all."""
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps({"domain": one.domain, "messages": one.messages}) + "\n" for one in conversations()))

    def warned(data: object, out: str) -> bool:
        caplog.clear()
        short = Stage("gate", moves="gate", steps=1, per_domain=1)
        train(fused, data, tmp_path / out, stages=[short], settings=TrainSettings(**QUIET))  # type: ignore[arg-type]
        return any(message.startswith(f"{file}: never checked") for message in caplog.messages)

    assert warned(file, "a") and warned([str(file)], "b")
    assert not warned(conversations(), "c")
    write_checked(file, {})
    assert not warned(str(file), "d")
