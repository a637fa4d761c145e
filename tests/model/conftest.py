"""The cases of the generation tests; and the marks of transformers' own tests where those run, as ours are strict."""

from __future__ import annotations

import re

import pytest
from generation_cases import Case, build, rows_of
from upstream import checkout


def pytest_configure(config: pytest.Config) -> None:
    root = checkout()
    if isinstance(root, str):
        return
    sources = [source for folder in ("", "generation", "exporters") for source in (root / "tests" / folder).glob("*.py")]
    sources.append(root / "src/transformers/testing_utils.py")
    for name in sorted({name for source in sources for name in re.findall(r"\bmark\.(\w+)", source.read_text("utf-8"))}):
        config.addinivalue_line("markers", f"{name}: of transformers' own tests")


@pytest.fixture(scope="module", params=["alike", "unlike"])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(build(request.param), rows_of(request.param))


@pytest.fixture(scope="module")
def alike() -> Case:
    return Case(build("alike"), rows_of("alike"))


@pytest.fixture(scope="module")
def unlike() -> Case:
    return Case(build("unlike"), rows_of("unlike"))
