"""What Python code may import: every name gives what it says, in whatever order things are imported."""

from __future__ import annotations

import inspect
import pydoc
import subprocess
import sys
from collections import UserList, deque

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


@pytest.mark.parametrize("name", [name for name in ultrafuser.__all__ if name != "__version__"])
def test_help_shows_how_each_is_called(name):
    """Catches a public name whose help tells ``*args``, or whose signature cannot be asked for."""
    public = getattr(ultrafuser, name)
    parameters = inspect.signature(public).parameters.values()
    assert parameters and not {one.kind for one in parameters} & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    shown = pydoc.plain(pydoc.render_doc(public))
    assert f"{name}({next(iter(parameters))}" in " ".join(shown.split()).replace("(*, ", "(") and name in dir(ultrafuser)
    doc = inspect.getdoc(ultrafuser.train.train if name == "train" else public)
    assert doc and doc.splitlines()[0] in shown


STAGE = ultrafuser.Stage("gate", moves="gate", steps=1, per_domain=1)


@pytest.mark.parametrize(
    ("name", "args", "options", "told"),
    [
        ("train", ("m", None, "o"), {}, "data=None: must be str | Path | Sequence[str | Path | Conversation]"),
        ("train", ("m", [17], "o"), {}, "data=[17]: must be str | Path | Sequence[str | Path | Conversation]"),
        ("train", ("m", "", "o"), {}, "data='': is empty"),
        ("train", ("m", "d", "o"), {"stages": STAGE}, "stages=Stage(steps=1, per_domain=1, learning_rate=2e-05, "),
        ("train", ("m", "d", "o"), {"stages": [{"name": "gate"}]}, "stages=[{'name': 'gate'}]: must be Sequence[Stage]"),
        ("train", ("m", "d", "o"), {"settings": {"seed": 1}}, "settings={'seed': 1}: must be TrainSettings"),
        ("train", (3, "d", "o"), {}, "model_dir=3: must be str | Path"),
        ("fuse", (["a", "b"], None), {}, "out=None: must be str | Path"),
        ("fuse", (["a", "b"], ""), {}, "out='': is empty"),
        ("fuse", (["a", "b"], "o"), {"options": {"seed": 1}}, "options={'seed': 1}: must be FuseOptions | None"),
        ("fuse", (["a", 3], "o"), {}, "specialists=['a', 3]: must be Sequence[str | Path]"),
        ("check", ("ab",), {}, "specialists='ab': must be Sequence[str | Path], such as ['ab']"),
        ("check", (["a", "b"],), {"templates": "plain"}, "templates='plain': must be Sequence[str] | None, such as ['plain']"),
        ("extract", ("m", 3, "o"), {}, "specialist=3: must be str"),
        ("extract", ("m", "a", "o"), {"overwrite": "no"}, "overwrite='no': must be bool"),
        ("average_merge", (["a", "b"], "o"), {"names": {"a", "b"}}, "names={'"),
    ],
)
def test_arguments_of_another_type(name, args, options, told, tmp_path, monkeypatch):
    """Catches a traceback of unrelated code, or a silent misunderstanding, for an argument that is not what is declared."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        getattr(ultrafuser, name)(*args, **options)
    assert str(caught.value).startswith(told) and "\n" not in str(caught.value) and not [*tmp_path.iterdir()]


def test_a_list_is_shown_where_it_would_do():
    """Catches a hint that is not true, and one stage in the place of a list without a hint."""
    with pytest.raises(UserError, match=r"must be Sequence\[Stage\], such as \[Stage\("):
        ultrafuser.train("m", "d", "o", stages=STAGE)
    with pytest.raises(UserError, match=r"must be Sequence\[Stage\]$"):
        ultrafuser.train("m", "d", "o", stages="gate")


@pytest.mark.parametrize("kind", [tuple, deque, UserList])
def test_any_sequence_is_a_list(kind):
    """Catches a sequence of another class refused for not being one."""
    for name, args in (("fuse", (kind(["./nowhere", "b"]), "o")), ("train", ("./nowhere", kind(["d.jsonl"]), "o"))):
        with pytest.raises(UserError, match=r"nowhere: no such directory"):
            getattr(ultrafuser, name)(*args)


def test_arguments_too_few_or_unknown():
    """Catches another error than Python's own for a call that cannot be."""
    with pytest.raises(TypeError, match="'out'"):
        ultrafuser.fuse(["a", "b"])
    with pytest.raises(TypeError, match="'overwrite'"):
        ultrafuser.fuse(["a", "b"], "o", overwrite=True)


def test_bitsandbytes_is_not_heard_where_nothing_is_quantised():
    """Catches its warning of a kernel to be fetched, on processors with AVX512-BF16: peft imports it, transformers peft."""
    command = [sys.executable, "-m", "ultrafuser", "train", "nowhere", "--data", "none", "--out", "never"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n"), done.stderr[:7]) == (2, 1, "error: ")


def test_calling_the_package_trains(tmp_path):
    """Catches a call that does not reach the function, or loses its arguments."""
    with pytest.raises(UserError, match="nowhere: no such directory"):
        ultrafuser.train(tmp_path / "nowhere", [], tmp_path / "out")
