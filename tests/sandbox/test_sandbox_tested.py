"""Programs against their tests: honest ones get the verdict that plain Python gives, and no cheat passes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ultrafuser.sandbox import Limits, TestedProgram, TestVerdict, run_tests
from ultrafuser.sandbox.process import Sandbox

ADD = "def add(a, b):\n    return a + b\n"
ADD_TESTS = "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert abs(candidate(0.5, 1) - 1.5) < 1e-9\ncheck(add)\n"
QUICK = Limits(wall_seconds=60.0, cpu_seconds=2.0)  # wall time is the machine's, not the program's: it may be busy


def verdicts(*programs: tuple[str, str], limits: Limits = QUICK) -> list[TestVerdict]:
    return run_tests([TestedProgram(*program) for program in programs], limits=limits)


def sections(name: str) -> dict[str, str]:
    """The programs in a text file beside this one, each under a line ``### its name``."""
    parts = (Path(__file__).with_name(name)).read_text().split("### ")[1:]
    return {title: body.strip() + "\n" for title, _, body in (part.partition("\n") for part in parts)}


HONEST = {name: tuple(text.split("--- tests\n")) for name, text in sections("honest_programs.txt").items()}
CHEATS = sections("cheating_programs.txt")


@pytest.fixture(scope="module")
def in_plain_python() -> dict[str, bool]:
    """The reference: program and tests one after the other in one ordinary interpreter, imported so that __main__ is another."""
    runs = {
        name: subprocess.Popen(
            [sys.executable, "-c", "import sys; exec(sys.stdin.read(), {'__name__': 'program'})"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name in HONEST
    }
    for name, run in runs.items():
        source, tests = HONEST[name]
        source = source.replace("return input()", "return 'end'")
        run.communicate(f"import sys, types\nsys.modules['program'] = types.ModuleType('program')\n{source}\n{tests}".encode())
    return {name: run.returncode == 0 for name, run in runs.items()}


def test_honest_programs_get_the_verdict_of_plain_python(level: str, in_plain_python: dict[str, bool]) -> None:
    """Catches a value, exception, iterator, class or changed argument that does not come across as it is."""
    found = dict(zip(HONEST, verdicts(*HONEST.values()), strict=True))
    assert {name: verdict.passed for name, verdict in found.items()} == in_plain_python, found
    assert sum(in_plain_python.values()) == 14


def test_reasons() -> None:
    """Catches a verdict that does not say what is wrong."""
    programs = [*(HONEST[name] for name in ("wrong", "missing", "does not parse", "raises", "message")), (ADD, "add(1)")]
    reasons = [verdict.reason for verdict in verdicts(*programs)]
    assert reasons[0] == "AssertionError: assert candidate(1, 2) == 3"
    assert reasons[1] == "NameError: name 'add' is not defined"
    assert reasons[2].startswith("SyntaxError: ") and reasons[3] == "OSError: at the top"
    assert reasons[4] == "AssertionError: told you" and reasons[5].startswith("TypeError: add() missing 1 required")


TIMES = "import os, signal\ndef add(a, b):\n"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("    while True: pass", "timed out"),
        ("    import time\n    time.sleep(100)", "timed out"),
        ("    os._exit(0)", "the program ended early, with exit code 0"),
        ("    os.kill(os.getpid(), 11)", "the program ended with SIGSEGV"),
        ("    return [0] * 10**10", "MemoryError: "),
        ("    return add(a, b)", "RecursionError: maximum recursion depth exceeded"),
        ("    raise SystemExit(0)", "SystemExit: 0"),
        ("    raise KeyboardInterrupt", "KeyboardInterrupt: "),
    ],
)
def test_programs_that_do_not_come_back(body: str, reason: str) -> None:
    """Catches a program that hangs or takes down the run, and one that ends being taken for one that passes."""
    limits = Limits(wall_seconds=2.0 if "sleep" in body else 60.0, cpu_seconds=1.0)
    (verdict,) = verdicts((TIMES + body, "try:\n    add(1, 2)\nexcept Exception: raise\nassert add(1, 2) == 3"), limits=limits)
    assert not verdict.passed and verdict.reason.startswith(reason)


@pytest.mark.parametrize("role", ["candidate", "tests"])
def test_no_time_runs_out_while_the_other_process_still_starts(role: str, level: str) -> None:
    """Catches a right program that times out because its tests, or it itself, took longer to start than it may run."""
    reader, ask = os.pipe()
    answered, writer = os.pipe()
    job = {"role": role, "source": "", "reader": reader, "writer": writer}
    with Sandbox(level, Limits(wall_seconds=0.2), job, descriptors=(reader, writer)) as sandbox:
        os.close(reader)
        os.close(writer)
        assert os.read(answered, 1)  # it has started
        time.sleep(0.5)
        assert sandbox._process.poll() is None
    os.close(ask)
    os.close(answered)


def test_no_cheat_passes(other_user: str) -> None:
    """Catches any way of a program to be taken for right: by its objects, its interpreter, its process or its messages."""
    limits = Limits(wall_seconds=2.0, cpu_seconds=1.0)
    found = dict(zip(CHEATS, verdicts(*((source, ADD_TESTS) for source in CHEATS.values()), limits=limits), strict=True))
    assert not {name: verdict for name, verdict in found.items() if verdict.passed}
    assert all(verdict.reason for verdict in found.values())


def test_tests_that_swallow_everything_do_not_pass_without_the_program() -> None:
    """Catches a pass by tests that went on after the program had ended."""
    tests = "try:\n    add(1, 2)\nexcept BaseException:\n    pass"
    dead, alive = verdicts(("import os\ndef add(a, b): os._exit(0)", tests), ("def add(a, b): raise ValueError", tests))
    assert (dead.passed, alive.passed) == (False, True)


def test_the_program_cannot_find_its_tests(other_user: str) -> None:
    """Catches tests or expected values in the memory, descriptors or files that the program's process can reach."""
    spy = """
import gc, os, sys
def has(text):
    return "suollevram" in text[::-1]  # the word itself must not be in here
def processes():
    try: return [*filter(str.isdigit, os.listdir("/proc"))]
    except PermissionError: return [str(pid) for pid in range(os.getpid() - 50, os.getpid() + 50)]
def readable():
    for pid in processes():
        for name in "cmdline", "environ", "mem", *(f"fd/{n}" for n in range(20)):
            if pid != str(os.getpid()):
                try: yield open(f"/proc/{pid}/{name}", "rb").read(10**6)
                except OSError: pass
    for n in range(100):
        try: yield os.pread(n, 10**6, 0)
        except OSError: pass
def objects():
    frame = sys._getframe()
    while frame:
        yield frame.f_locals, frame.f_globals
        frame = frame.f_back
    yield from gc.get_objects()
def spy(secret):
    texts = [text for text in readable() if has(text.decode("latin-1"))]
    found = [o for o in objects() if type(o) in (list, tuple, dict) and has(repr(o)[:10**5])]
    return len(texts) + len(found)
"""
    assert (
        verdicts((spy, "assert spy(1) == 0, 'marvellous'"), (spy, "assert spy('marvellous') > 0"))
        == [TestVerdict(True, "passed")] * 2
    )


def test_order_and_number_of_workers() -> None:
    """Catches verdicts that belong to another program."""
    programs = [TestedProgram(f"def f():\n    return {i}", f"assert f() == {i - i % 2}") for i in range(7)]
    assert [verdict.passed for verdict in run_tests(programs, workers=3)] == [i % 2 == 0 for i in range(7)]
    assert run_tests([]) == []
