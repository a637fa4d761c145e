"""What the tests of the hub share: specialists, the files that lie beside them there, conversations, and the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from tiny import tiny_specialist
from ultrafuser.cli import app

TEMPLATES = {"text": "user", "code": "inst", "math": "chatml"}
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
# What makers put beside the weights that we want: none of it may be fetched.
BESIDE = {
    "README.md": b"# A model\n",
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "pytorch_model.bin": b"pickled",
    "pytorch_model.bin.index.json": b"{}",
    "training_args.bin": b"pickled",
    "consolidated.safetensors": b"the same weights",
    "handler.py": b"raise SystemExit('remote code was run')\n",
    "original/consolidated.00.pth": b"pickled",
    "original/params.json": b"{}",
    "onnx/model.onnx": b"the same weights",
    "onnx/config.json": b"{}",
}


def make_trio(folder: Path) -> dict[str, Path]:
    """Three tiny specialists with unlike templates, by name; the second is in several files."""
    return {
        name: tiny_specialist(
            folder / name, seed=seed, template=template, max_shard_size="20KB" if name == "code" else "5GB", **SMALL
        )
        for seed, (name, template) in enumerate(TEMPLATES.items())
    }


def files_of(folder: Path) -> dict[str, bytes]:
    """Path -> content of all files below a directory."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def without_weights(folder: Path) -> dict[str, bytes]:
    """The files of a model, but for its weights."""
    return {path: content for path, content in files_of(folder).items() if ".safetensors" not in path}


def weights_of(folder: Path) -> dict[str, bytes]:
    """The weight files of a model."""
    return {path: content for path, content in files_of(folder).items() if path.endswith(".safetensors")}


def conversations(count: int = 2) -> list[dict[str, Any]]:
    """``count`` short conversations of every domain, in the layout of the training data."""
    return [
        {"domain": domain, "messages": [said("user", f"What is the {domain} sum of {i}?"), said("assistant", f"It is {i}.")]}
        for i in range(count)
        for domain in TEMPLATES
    ]


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def json_lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def ultrafuser(*arguments: object, environment: Mapping[str, str] | None = None) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)


def mistake(*arguments: object, environment: Mapping[str, str] | None = None) -> str:
    """The one line that a mistake is told in."""
    result = ultrafuser(*arguments, environment=environment)
    assert result.exit_code == 2, result.output
    assert result.stdout == "" and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.output
    return result.stderr.removeprefix("error: ").rstrip("\n")
