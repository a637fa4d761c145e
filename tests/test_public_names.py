"""What Python code may import: every name gives what it says, in whatever order things are imported."""

from __future__ import annotations

import subprocess
import sys

import pytest

import ultrafuser
import ultrafuser.train
from ultrafuser.errors import UserError

FIRST = (
    "import ultrafuser",
    "import ultrafuser.train.stage",
    "import ultrafuser.train.run",
    "import ultrafuser; ultrafuser.train",
)


@pytest.mark.parametrize("package", [ultrafuser, ultrafuser.train], ids=lambda package: str(package.__name__))
def test_every_public_name_gives_what_it_names(package):
    """Catches a function that a package of its name hides, and a name that leads nowhere."""
    given = {name: getattr(package, name) for name in package.__all__ if name != "__version__"}
    assert given and {name: value.__name__.rpartition(".")[2] for name, value in given.items()} == {name: name for name in given}
    assert all(map(callable, given.values()))


@pytest.mark.parametrize("first", FIRST)
def test_train_is_a_function_and_a_package_in_any_order(first):
    """Catches ``ultrafuser.train(..)`` that works only until a part of the package of that name is imported."""
    code = f"{first}; import ultrafuser; from ultrafuser.train import train; print(callable(train), callable(ultrafuser.train))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "True True\n", done.stderr


def test_calling_the_package_trains(tmp_path):
    """Catches a call that does not reach the function, or loses its arguments."""
    with pytest.raises(UserError, match="nowhere: no such directory"):
        ultrafuser.train(tmp_path / "nowhere", [], tmp_path / "out")
