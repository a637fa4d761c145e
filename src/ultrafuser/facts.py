"""What is needed to make a run again: command, seed, versions, machine and commit. Needs no torch."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import ultrafuser

LIBRARIES = ("torch", "transformers", "lm_eval")  # those whose version can change a result


def run_facts(seed: int) -> dict[str, str]:
    """Facts about this process, in the order in which a report shows them."""
    return {
        "command": f"{_program()} {shlex.join(sys.argv[1:])}".rstrip(),
        "seed": str(seed),
        "versions": ", ".join(versions()),
        "machine": machine(),
        "commit": commit(),
    }


def _program() -> str:
    """What was started, as it is typed: ``ultrafuser``, ``python -m ultrafuser``."""
    module = sys.modules["__main__"].__spec__  # of what ``python -m`` runs; a package's is its ``__main__``
    return f"python -m {module.name.removesuffix('.__main__')}" if module else shlex.quote(Path(sys.argv[0]).name)


def versions() -> list[str]:
    """Names and versions of this package, of the libraries that decide results, and of Python."""
    names = [name for name in LIBRARIES if importlib.util.find_spec(name)]
    return [
        f"ultrafuser {ultrafuser.__version__}",
        *(f"{name} {importlib.metadata.version(name)}" for name in names),
        f"Python {platform.python_version()}",
    ]


def machine() -> str:
    """Cores, processor and GPU, in words."""
    torch = sys.modules.get("torch")
    gpu = f", {torch.cuda.get_device_name()}" if torch and torch.cuda.is_available() else ""
    return f"{os.cpu_count()} cores, {_processor()}, {platform.system()}{gpu}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def commit() -> str:
    """The source tree's commit, with ``+ changes`` if it has uncommitted ones; ``unknown`` where there is no git.

    A repository that only lies around the package, which is installed or copied there, is not that of the source.
    """
    here = Path(__file__).parent
    try:
        _git(here, "ls-files", "--error-unmatch", Path(__file__).name)
        name = _git(here, "rev-parse", "--short=12", "HEAD")
        return name + (" + changes" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
