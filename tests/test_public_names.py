"""What Python code may import: every name gives what it says, in whatever order things are imported."""

from __future__ import annotations

from types import ModuleType

import pytest

import ultrafuser
import ultrafuser.train


@pytest.mark.parametrize("package", [ultrafuser, ultrafuser.train], ids=lambda package: str(package.__name__))
def test_every_public_name_gives_what_it_names(package: ModuleType) -> None:
    """Catches a function that a package of its name hides, and a name that leads nowhere."""
    given = {name: getattr(package, name) for name in package.__all__ if name != "__version__"}
    assert given and {name: value.__name__ for name, value in given.items()} == {name: name for name in given}
    assert all(map(callable, given.values()))
