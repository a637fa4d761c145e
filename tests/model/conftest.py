"""Declares the marks of transformers' own tests where test_transformers_suite.py runs them: ours are strict."""

from __future__ import annotations

import re

import pytest
from upstream import checkout


def pytest_configure(config: pytest.Config) -> None:
    root = checkout()
    if isinstance(root, str):
        return
    sources = [source for folder in ("", "generation", "exporters") for source in (root / "tests" / folder).glob("*.py")]
    sources.append(root / "src/transformers/testing_utils.py")
    for name in sorted({name for source in sources for name in re.findall(r"\bmark\.(\w+)", source.read_text("utf-8"))}):
        config.addinivalue_line("markers", f"{name}: of transformers' own tests")
