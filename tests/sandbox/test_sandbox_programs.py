"""Programs that misbehave in every way we know of, each with a harmless neighbour."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ultrafuser.sandbox import FunctionCalls, Limits, call_functions, run_program
from ultrafuser.sandbox.process import Sandbox

QUICK = Limits(wall_seconds=60.0, cpu_seconds=1.0, memory_bytes=256 * 2**20)
GOOD = FunctionCalls("def f(x):\n    return [x, x * 2]\n", "f", [[1], [2]])


def test_program_output_and_end_are_reported() -> None:
    """Catches output of the program being lost or an ordinary end not being seen as one."""
    result = run_program("import sys\nprint('hello')\nprint('oh', file=sys.stderr)\n")
    assert (result.ok, result.stdout, result.stderr, result.timed_out, result.returncode) == (True, "hello\n", "oh\n", False, 0)


@pytest.mark.parametrize(
    "source",
    [
        "raise ValueError('no')",
        "import os\nos._exit(0)",
        "raise SystemExit",
        "import os\nos.kill(os.getpid(), 9)",
        "def (",
        "assert 1 == 2",
    ],
)
def test_a_program_that_does_not_reach_its_end_is_not_ok(source: str) -> None:
    """Catches a pass faked by leaving early with return code 0."""
    assert not run_program(source).ok


@pytest.mark.parametrize("source", ["while True: pass", "import time\ntime.sleep(60)"])
def test_time_limits(source: str) -> None:
    """Catches a missing CPU limit (a busy loop) and a missing wall-clock limit (a sleeper)."""
    result = run_program(source, limits=replace(QUICK, wall_seconds=1.5) if "sleep" in source else QUICK)
    assert result.timed_out and not result.ok


def test_memory_output_and_file_limits() -> None:
    """Catches each of three limits not being set."""
    assert "MemoryError" in run_program("x = bytearray(10**9)", limits=QUICK).stderr
    flood = run_program("while True: print('x' * 1000)", limits=QUICK)
    assert not flood.ok and len(flood.stdout) == QUICK.output_bytes
    assert "File too large" in run_program("open('f', 'wb').write(b'x' * 10**7)", limits=QUICK).stderr


def test_surroundings_are_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches our environment, folder, file descriptors, standard input or installed packages being handed on."""
    monkeypatch.setenv("HF_TOKEN", "secret")
    source = "import os, sys\nprint('HF_TOKEN' in os.environ, os.listdir(), os.getcwd(), repr(sys.stdin.read()))"
    seen = run_program(source).stdout.split(" ", 2)
    assert seen[:2] == ["False", "[]"] and seen[2].endswith("''\n") and str(Path.cwd()) not in seen[2]
    assert "No module named 'torch'" in run_program("import torch").stderr


@pytest.mark.parametrize(
    "source",
    [
        "open('/etc/passwd')",
        "import os",
        "from math import __loader__",
        "eval('1')",
        "getattr(1, 'real')",
        "().__class__.__base__.__subclasses__()",
        "(x for x in []).gi_frame",
        "f'{().__class__}'",
        "match 1:\n    case object(__class__=c): pass",
        "import statistics\nstatistics.sys",
        "import random\nrandom._os",
        "__builtins__",
        "__import__('os')",
    ],
)
def test_restricted_mode_refuses(source: str) -> None:
    """Catches each known way out of restricted builtins being open."""
    result = run_program(source, imports=["math", "statistics", "random"])
    assert not result.ok and result.returncode == 1


WAYS_OUT = {
    "the object in the error of a format": """
def reach(thing, path):
    try:
        ("{0." + path + ".nothing}").format(thing)
    except AttributeError as error:
        return error.obj
inner = reach(reach, "__globals__")["__builtins__"]["__import__"]
print("OUT", reach(inner, "__globals__")["__builtins__"]["open"])
""",
    "the same, read by a pattern": """
def reach(thing, path):
    try:
        ("{x." + path + ".nothing}").format_map({"x": thing})
    except AttributeError as error:
        match error:
            case AttributeError(obj=found):
                return found
print("OUT", reach(print, "__self__"))
""",
    "the attributes that a class names for its pattern": """
class Any(type):
    def __instancecheck__(self, thing):
        return True
def reach(thing, name):
    kind = Any("", (), {"__match_args__": (name,)})
    match thing:
        case kind(found):
            return found
inner = reach(reach, "__globals__")["__builtins__"]["__import__"]
print("OUT", reach(inner, "__globals__")["__builtins__"]["open"])
""",
    "an import of its own that lies about its name, bound by a pattern": """
write = print
class Os: pass
def give(*_):
    found = Os()
    found.__name__ = "os"
    return found
match {"__import__": give}:
    case __builtins__: pass
def leave():
    from anywhere import path
    return path
write("OUT", leave())
""",
    "the same, bound by a definition": """
write = print
class Os: pass
def give(*_):
    found = Os()
    found.__name__ = "os"
    return found
@lambda _: {"__import__": give}
def __builtins__(): pass
def leave():
    from anywhere import path
    return path
write("OUT", leave())
""",
    "a module with another's name": """
import math
math.__name__ = "os"
from math import path
print("OUT", path)
""",
    "the same, by a call": """
import math
math.__init__(**{"__name__": "os"})
from math import path
print("OUT", path)
""",
}


@pytest.mark.parametrize("source", WAYS_OUT.values(), ids=WAYS_OUT)
def test_nothing_leads_out_of_restricted_mode(source: str) -> None:
    """Catches ways to what the interpreter holds that name no attribute with an underscore: they did lead out."""
    result = run_program(source, imports=["math"])
    assert not result.ok and "OUT" not in result.stdout and ("NameError" in result.stderr or "ImportError" in result.stderr)


@pytest.mark.parametrize(
    "source",
    [
        "'x'.encode('cp037')",
        "try:\n    import os\nexcept Exception as error:\n    error.name, error.name_from = 'this', 'x'\n    raise",
    ],
    ids=["a codec", "the module that an uncaught error names"],
)
def test_nothing_is_imported_for_a_restricted_program(source: str) -> None:
    """Catches the interpreter importing, with its own rights, what a program names (the second: Python 3.13 and newer)."""
    result = run_program(source, imports=[])
    assert not result.ok and result.stdout == "" and "Error: " in result.stderr


def test_restricted_mode_runs_ordinary_programs() -> None:
    """Catches a restricted mode too narrow for classes, comprehensions, exceptions, patterns and allowed imports."""
    source = """
import math
from statistics import mean
class A:
    def __init__(self, x): self.x = x
try:
    [][1]
except IndexError:
    print(math.floor(mean([1, 2])), sorted({A(3).x, 2}), sum(i for i in range(3)))
match A(4), "__builtins__":
    case A(x=4) as a, str() as text if math.pi:
        print(f"{a.x:3}", "%s" % text, format(a.x, "02"), A.__name__)
"""
    assert run_program(source, imports=["math", "statistics"]).stdout == "1 [2, 3] 3\n  4 __builtins__ 04 A\n"


def test_calls_return_values_and_bad_ones_do_not_spoil_the_others() -> None:
    """Catches an infinite loop, crash, flood, bad value or wrong name in one program changing another's result."""
    bad = [
        "def f(x):\n    while True: pass",
        "def f(x):\n    return f(x)",
        "def f(x):\n    return [0] * 10**9",
        "def f(x):\n    return 'y' * 10**6",
        "def f(x):\n    return {1, 2}",
        "def f(x):\n    raise SystemExit(0)",
        "def g(x):\n    return [x, x * 2]",
        "import os\ndef f(x):\n    os._exit(0)",
        "def f(x): (",
        "",
        "print('[[1, 2], [2, 4]]')",
    ]
    jobs = [job for source in bad for job in (FunctionCalls(source, "f", [[1], [2]]), GOOD)]
    assert call_functions(jobs, limits=QUICK, workers=2) == [None, [[1, 2], [2, 4]]] * len(bad)


def test_a_job_that_would_kill_its_interpreter_costs_only_itself(level: str) -> None:
    """Catches the jobs behind one that ends the forking interpreter being lost or shifted by one."""
    killer = FunctionCalls("import posix\ndef f(x):\n    posix.kill(posix.getppid(), 9)", "f", [[1], [2]])
    expected = [[1, 2], [2, 4]]
    before, killed, *after = call_functions([GOOD, killer, GOOD, GOOD], imports=["posix"], workers=1)
    assert [before, *after] == [expected] * 3 and killed in (None, [None, None])  # without a filter, a namespace's first lives on


def test_a_sandbox_that_ends_early_costs_one_job_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches the jobs behind the one at which a sandbox ended being lost or shifted."""
    whole = Sandbox.reports
    monkeypatch.setattr(Sandbox, "reports", lambda self, seconds: whole(self, seconds)[:1])
    expected = [[1, 2], [2, 4]]
    assert call_functions([GOOD] * 5, workers=1) == [expected, None, expected, None, expected]


def test_a_job_may_wait_longer_than_it_may_compute() -> None:
    """Catches a right program judged wrong since the machine stood still for a moment, as a sleep does here."""
    waits = FunctionCalls("import time\ndef f(x):\n    time.sleep(1.1)\n    return [x, x * 2]\n", "f", GOOD.arguments)
    assert call_functions([waits], imports=["time"]) == [[[1, 2], [2, 4]]]


def test_no_jobs() -> None:
    """Catches an empty list starting processes or failing."""
    assert call_functions([]) == []
