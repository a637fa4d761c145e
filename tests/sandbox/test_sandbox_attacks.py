"""Programs that attack us in every way we know of, at every level of isolation that is to stop them.

Each prints DONE where its attack succeeded; what could also be seen from outside is looked at from outside.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import ultrafuser
from ultrafuser.sandbox import Limits, ProgramResult, run_program

QUICK = Limits(wall_seconds=6.0, cpu_seconds=1.0, memory_bytes=256 * 2**20)
PROBE = """
def attempt(attack, *arguments):
    try:
        result = attack(*arguments)
    except Exception as error:
        return None
    print("DONE", arguments)
    return result
"""


def attack(source: str, limits: Limits = QUICK) -> ProgramResult:
    result = run_program(PROBE + source, limits=limits)
    assert "DONE" not in result.stdout, result
    return result


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours that an attack may hit."""
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def running(mark: str) -> bool:
    """Whether a process whose command line contains ``mark`` is alive on this machine."""
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in file.read_bytes():
                return True
        except OSError:
            continue
    return False


def gone_soon(mark: str) -> bool:
    """A killed process takes the kernel a moment; ten seconds are more than that."""
    end = time.monotonic() + 10
    while running(mark) and time.monotonic() < end:
        os.sched_yield()
    return not running(mark)


def test_fork_bomb(level: str) -> None:
    """Catches a limit on processes that is missing or does not bind, as for root."""
    assert "BlockingIOError" in attack("import os\nwhile True: os.fork()").stderr
    assert "can't start new thread" in attack("import threading\nthreading.Thread(target=print).start()").stderr


def test_fork_bomb_where_some_processes_are_allowed(other_user: str) -> None:
    """Catches a limit that counts only direct children, and processes left behind in a session of their own."""
    mark = f"sleeper-{secrets.token_hex(8)}"
    source = f"""
import os, sys, time
def bomb():
    while True:
        if os.fork() == 0:
            os.setsid()
            if os.fork():
                os.execv(sys.executable, ["{mark}", "-I", "-S", "-c", "import time; time.sleep(100)"])
try:
    bomb()
except BlockingIOError:
    time.sleep(0.2)
"""
    start = time.monotonic()
    attack(source, Limits(wall_seconds=6.0, cpu_seconds=1.0, processes=6))
    assert time.monotonic() - start < 60 and gone_soon(mark)


def test_background_process_is_seen_while_the_program_runs() -> None:
    """Catches a search for processes that never finds any, which would make the test above empty."""
    mark = f"sleeper-{secrets.token_hex(8)}"
    with subprocess.Popen([mark, "-I", "-S", "-c", "input()"], executable=sys.executable, stdin=subprocess.PIPE) as process:
        assert running(mark)
        process.kill()


@pytest.mark.parametrize("source", ["x = bytearray(10**10)", "x = []\nwhile True: x.append(bytearray(10**6))"])
def test_memory_bomb(level: str, source: str) -> None:
    """Catches a missing limit on memory."""
    assert "MemoryError" in attack(source).stderr


def test_endless_output(level: str) -> None:
    """Catches output that fills our memory or disk."""
    flood = attack("while True: print('x' * 1000)")
    assert not flood.ok and len(flood.stdout) == QUICK.output_bytes


def test_a_file_that_grows(level: str) -> None:
    """Catches a missing limit on the size of a file."""
    assert "File too large" in attack("open('f', 'wb').write(b'x' * 10**7)").stderr


def test_many_files(namespaced: str) -> None:
    """Catches a disk filled by files that are each small enough."""
    source = """
import os
total = 0
try:
    while True:
        total += open(f"f{total}", "wb", buffering=0).write(b"x" * 2**20)
except OSError as error:
    print(total, error.strerror)
"""
    total, reason = attack(source, Limits(folder_bytes=2**23)).stdout.split(maxsplit=1)
    assert 2**22 < int(total) <= 2**23 and "No space left" in reason


def test_writing_outside(namespaced: str) -> None:
    """Catches any directory but the working one that can be written to."""
    source = """
import os
for line in open("/proc/self/mounts"):
    _, folder, kind, options = line.split()[:4]
    writable = "ro" not in options.split(",") and folder not in (os.getcwd(), "/proc") and os.path.isdir(folder)
    attempt(print, folder) if writable else None
for folder, inner, _ in os.walk("/"):
    if folder in ("/usr", "/lib", os.getcwd(), "/proc"):
        inner.clear()
        continue
    for way, how in (open, "w"), (os.chmod, 0o777), (os.rename, folder + "-moved"):
        attempt(way, folder + "/intruder" if way is open else folder, how)
"""
    assert attack(source, Limits(wall_seconds=60.0, cpu_seconds=30.0)).ok


def test_overwriting_what_is_ours(other_user: str, tmp_path: Path) -> None:
    """Catches files of ours that a program can change where it can see them."""
    precious = tmp_path / "precious"
    precious.write_text("ours")
    attempts = "(open, 'w'), (os.truncate, 0), (os.chmod, 0o777), (os.rename, 'mine')"
    attack(f"import os\nfor way, how in {attempts}: attempt(way, {str(precious)!r}, how)\nattempt(os.unlink, {str(precious)!r})")
    assert precious.read_text() == "ours"


def test_reading_what_is_ours(namespaced: str, tmp_path: Path) -> None:
    """Catches files that Python does not need being there: users, home, project, data, installed packages."""
    (tmp_path / "data").write_text("secret")
    files = ["/etc/passwd", "/etc/hostname", str(tmp_path / "data"), ultrafuser.__file__, pytest.__file__, "/proc/1/environ"]
    files += [str(path) for path in Path.home().iterdir() if path.is_file()]
    attack(f"for file in {files!r}: attempt(open, file)")


def test_leaving_by_open_descriptors(namespaced: str) -> None:
    """Catches a directory of ours that stays open inside."""
    attack("import os\nfor number in range(2000): attempt(lambda: os.open('.', os.O_RDONLY, dir_fd=number))")


def test_reading_environment_variables(other_user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches our environment being handed on, or readable where the kernel shows it."""
    monkeypatch.setenv("SECRET_KEY", "hush")
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE):  # has it from its start
        source = """
import os
def look(folder):
    assert b"hush" in open(f"/proc/{folder}/environ", "rb").read()
assert "SECRET_KEY" not in os.environ
for folder in os.listdir("/proc"): attempt(look, folder)
"""
        assert attack(source).ok


def test_network(namespaced: str) -> None:
    """Catches a listener of ours that can be reached: over TCP, by an abstract socket, or by one with a name."""
    name = f"\0{secrets.token_hex(8)}"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(name)
        abstract.listen()
        source = f"""
import socket
attempt(socket.create_connection, {tcp.getsockname()!r}, 1)
attempt(socket.socket(socket.AF_UNIX).connect, {name!r})
attempt(socket.create_connection, ("1.1.1.1", 53), 1)
attempt(socket.getaddrinfo, "python.org", 80)
"""
        assert attack(source).ok


@pytest.mark.parametrize("target", ["os.getppid()", "-1", "0", "1"])
def test_killing(other_user: str, target: str, bystander: subprocess.Popen[bytes]) -> None:
    """Catches a signal that reaches us. (A program may end its own supervisor.)"""
    attack(f"import os\nfor pid in ({bystander.pid}, {os.getpid()}): attempt(os.kill, pid, 9)")
    run_program(f"import os\nos.kill({target}, 15)\nos.kill({target}, 9)", limits=QUICK)
    assert bystander.poll() is None and run_program("print('well')").stdout == "well\n"


def test_tracing(other_user: str, bystander: subprocess.Popen[bytes]) -> None:
    """Catches a process that a program can attach to or whose memory it can read: ours, or its own supervisor."""
    source = f"""
import ctypes, os
def trace(pid):
    assert ctypes.CDLL(None).ptrace(16, pid, 0, 0) == 0
for pid in {{1, os.getppid(), {bystander.pid}, {os.getpid()}}}:
    attempt(trace, pid)
    attempt(open, f"/proc/{{pid}}/mem", "rb")
    attempt(os.readlink, f"/proc/{{pid}}/fd/0")
"""
    assert attack(source).ok


def test_ignoring_signals(level: str) -> None:
    """Catches a time limit that a program can put off."""
    ignore = "import signal, time\nfor s in set(signal.Signals) - {9, 19}: signal.signal(s, signal.SIG_IGN)\n"
    start = time.monotonic()
    assert attack(ignore + "while True: pass", Limits(wall_seconds=2.0, cpu_seconds=1.0)).timed_out
    assert attack(ignore + "time.sleep(100)", Limits(wall_seconds=1.0)).timed_out
    assert time.monotonic() - start < 60


def test_becoming_root_again(level: str) -> None:
    """Catches rights that are only put aside: the user before, capabilities, set-user-ID programs."""
    source = """
import os
assert os.getuid() and os.geteuid()
attempt(os.setuid, 0)
attempt(os.setgroups, [0])
attempt(os.chroot, "/")
assert "NoNewPrivs:\\t1" in open("/proc/self/status").read()
"""
    assert attack(source).ok


def test_raising_limits(level: str) -> None:
    """Catches limits that a program can lift."""
    source = """
import resource
for kind in (resource.RLIMIT_AS, resource.RLIMIT_NPROC, resource.RLIMIT_FSIZE, resource.RLIMIT_CPU, resource.RLIMIT_NOFILE):
    attempt(resource.setrlimit, kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
"""
    assert attack(source).ok


def test_programs_end_with_us(level: str) -> None:
    """Catches a program that goes on when our process was killed."""
    mark = f"orphan-{secrets.token_hex(8)}"
    ours = f"""
from ultrafuser.sandbox import Limits, levels, run_program
levels.isolation = lambda: {level!r}
program = 'import os, sys; os.execv(sys.executable, ["{mark}", "-I", "-S", "-c", "import time; time.sleep(100)"])'
run_program(program, limits=Limits(wall_seconds=100.0))
"""
    with subprocess.Popen([sys.executable, "-c", ours]) as process:
        while not running(mark) and process.poll() is None:
            os.sched_yield()
        process.kill()
    assert gone_soon(mark)


def test_many_at_once_do_not_meet(level: str) -> None:
    """Catches a working directory that two programs share, or one that is not deleted."""
    results: list[ProgramResult] = []
    program = "import os\nopen('f', 'x').close()\nprint(os.listdir())"
    threads = [threading.Thread(target=lambda: results.append(run_program(program))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.stdout for result in results] == ["['f']\n"] * 4
