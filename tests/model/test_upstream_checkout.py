"""The adapter to transformers' own tests: which checkout it takes, and that its table of expected failures is strict."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers
from upstream import VARIABLE, checkout, expected_to_fail


def lay_out(root: Path, version: str) -> None:
    for name in ("src/transformers/__init__.py", "tests/generation/test_utils.py", "tests/test_modeling_common.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f'__version__ = "{version}"\n')


def test_only_a_checkout_of_the_installed_release_is_taken(tmp_path, monkeypatch):
    """Tests of another release, or a source distribution without the generation tests, would say nothing about this model."""
    monkeypatch.delenv(VARIABLE, raising=False)
    assert f"set {VARIABLE}" in checkout()
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert "not a git checkout" in checkout()
    lay_out(tmp_path, "4.1.0")
    assert "is transformers 4.1.0" in checkout()
    lay_out(tmp_path, transformers.__version__)
    assert checkout() == tmp_path
    (tmp_path / "tests/generation/test_utils.py").unlink()
    assert "tests/generation/test_utils.py" in checkout()


def test_a_mark_stays_on_its_own_class():
    """The mixins are shared: an expected failure of one fused model must still fail in the other."""

    class Mixin:
        def test_it(self):
            return type(self)

    class Marked(Mixin): ...

    expected_to_fail({"test_it": "because"})(Marked)
    (mark,) = Marked.test_it.pytestmark
    assert mark.name == "xfail" and mark.kwargs == {"reason": "because", "strict": True}
    assert Marked().test_it() is Marked and not hasattr(Mixin.test_it, "pytestmark")
    with pytest.raises(AttributeError):
        expected_to_fail({"test_gone": "because"})(Marked)
