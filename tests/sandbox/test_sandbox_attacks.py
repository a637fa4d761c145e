"""Programs that attack us in every way we know of, at every level of isolation that is to stop them.

Each prints DONE where its attack succeeded; what could also be seen from outside is looked at from outside.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import ultrafuser
from ultrafuser.sandbox import Limits, ProgramResult, filter, run_program

QUICK = Limits(wall_seconds=60.0, cpu_seconds=1.0, memory_bytes=256 * 2**20)
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
    """A killed process takes the kernel a moment; a minute is more than that."""
    end = time.monotonic() + 60
    while running(mark) and time.monotonic() < end:
        os.sched_yield()
    return not running(mark)


def test_fork_bomb(level: str) -> None:
    """Catches a limit on processes that is missing or does not bind, as for root."""
    assert "BlockingIOError" in attack("import os\nwhile True: os.fork()").stderr
    assert "can't start new thread" in attack("import threading\nthreading.Thread(target=print).start()").stderr


def test_fork_bomb_where_some_processes_are_allowed(level: str) -> None:
    """Catches a limit that counts only direct children, and processes left behind in a session of their own."""
    mark = f"sleeper-{secrets.token_hex(8)}"
    source = f"""
import os, sys, time
def bomb():
    while True:
        if os.fork() == 0:
            try:
                os.setsid()
            except OSError:
                pass
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
    command = [mark, "-I", "-S", "-c", "input('up')"]
    with subprocess.Popen(command, executable=sys.executable, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        # Popen returns when exec closes its pipe, which is before the kernel has the new command line.
        assert process.stdout is not None and process.stdout.read(2) == b"up"
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


def test_many_files(level: str) -> None:
    """Catches a disk filled by files that are each small enough."""
    source = """
import os, time
total = 0
try:
    while total < 2**24:
        total += open(f"f{total}", "wb", buffering=0).write(b"x" * 2**20)
        print(total, flush=True)
    time.sleep(100)
except OSError as error:
    print(error.strerror)
"""
    result = attack(source, Limits(wall_seconds=60.0, folder_bytes=2**23))
    *totals, last = result.stdout.split("\n")[:-1]
    if level in ("bubblewrap", "namespaces"):
        assert 2**22 < int(totals[-1]) <= 2**23 and last == "No space left on device"
    else:  # it is seen a moment later, and killed
        assert int(last) >= 2**23 and result.returncode == -9 and not result.timed_out


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory with a file, both of which anybody may write to, in a place that anybody can reach."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        path = Path(folder)
        (path / "file").write_text("ours")
        (path / "folder").mkdir()
        for each in path, path / "file", path / "folder":
            each.chmod(0o777)
        yield path
        assert sorted(each.name for each in path.iterdir()) == ["file", "folder"] and not list((path / "folder").iterdir())
        assert (path / "file").read_text() == "ours" and (path / "file").stat().st_mode & 0o777 == 0o777
        assert (path / "file").stat().st_mtime > 1 and not os.listxattr(path / "file")


def test_changing_files_in_a_public_place(isolated: str, public: Path) -> None:
    """Catches each way to write, empty, move, delete, link to or change a file or directory outside of the working one."""
    source = f"""
import os
file, folder, out = {str(public / "file")!r}, {str(public / "folder")!r}, {str(public)!r} + "/"
for mode in "r", "w", "a", "r+": attempt(open, file, mode)
attempt(open, out + "new", "x")
attempt(os.open, out, os.O_WRONLY | os.O_TMPFILE)
attempt(os.open, file, os.O_RDONLY | os.O_TRUNC)
attempt(os.truncate, file, 0)
attempt(os.unlink, file)
attempt(os.rmdir, folder)
attempt(os.mkdir, out + "new")
attempt(os.mkfifo, out + "new")
attempt(os.symlink, "/", out + "new")
open("mine", "w").close()
for way in os.rename, os.link, os.replace:
    attempt(way, file, "stolen")
    attempt(way, "mine", out + "new")
    attempt(way, "mine", file)
attempt(os.chmod, file, 0)
attempt(os.chown, file, os.getuid(), -1)
attempt(os.utime, file, (1, 1))
attempt(os.setxattr, file, "user.x", b"")
attempt(os.listdir, out)
"""
    assert attack(source).ok


def test_links_that_lead_outside(isolated: str, public: Path) -> None:
    """Catches a symbolic link, a descriptor, a path through /proc or a change of directory that leads out."""
    source = f"""
import os
out = {str(public)!r}
os.symlink(out + "/file", "file")
os.symlink(out, "folder")
os.symlink("../" * 20 + out[1:], "up")
def through(descriptor):
    os.unlink("file", dir_fd=descriptor)
paths = ["file", "folder/file", "up/file"]
paths += [f"/proc/{{pid}}/{{link}}{{out}}/file" for pid in ("self", "1", os.getppid()) for link in ("root", "cwd/" + "../" * 20)]
for path in paths:
    attempt(open, path)
    attempt(open, path, "a")
    attempt(os.truncate, path, 0)
    attempt(os.chmod, path, 0) if path == "file" else attempt(os.unlink, path)
attempt(lambda: through(os.open("folder", os.O_PATH)))
attempt(lambda: through(os.open("folder", os.O_RDONLY)))
def from_there():
    os.chdir(out)
    open("file")
attempt(from_there)
"""
    assert attack(source).ok


def test_writing_outside(isolated: str, tmp_path: Path) -> None:
    """Catches any directory but the working one that can be written to."""
    places = [tmp_path, Path.cwd(), Path.home(), "/", "/tmp", "/var/tmp", "/dev", "/dev/shm", "/usr", "/etc", "/run", *sys.path]
    source = f"""
import os
try:
    mounts = open("/proc/self/mounts").readlines()
except PermissionError:
    mounts = []
for line in mounts:
    _, folder, kind, options = line.split()[:4]
    writable = "ro" not in options.split(",") and folder not in (os.getcwd(), "/proc") and os.path.isdir(folder)
    attempt(print, folder) if writable else None
def intrude(folder):
    for way, how in (open, "w"), (os.chmod, 0o777), (os.rename, folder + "-moved"):
        attempt(way, folder + "/intruder" if way is open else folder, how)
for folder in {[str(place) for place in places]!r}: intrude(folder)
for folder, inner, _ in os.walk("/"):
    if folder in ("/usr", "/lib", os.getcwd(), "/proc"):
        inner.clear()
        continue
    intrude(folder)
"""
    assert attack(source, Limits(wall_seconds=60.0, cpu_seconds=30.0)).ok
    assert not list(tmp_path.iterdir())


def test_overwriting_what_is_ours(other_user: str, tmp_path: Path) -> None:
    """Catches files of ours that a program can change where it can see them."""
    precious = tmp_path / "precious"
    precious.write_text("ours")
    attempts = "(open, 'w'), (os.truncate, 0), (os.chmod, 0o777), (os.rename, 'mine')"
    attack(f"import os\nfor way, how in {attempts}: attempt(way, {str(precious)!r}, how)\nattempt(os.unlink, {str(precious)!r})")
    assert precious.read_text() == "ours"


def test_reading_what_is_ours(isolated: str, tmp_path: Path) -> None:
    """Catches files that Python does not need being there: users, home, project, data, installed packages."""
    (tmp_path / "data").write_text("secret")
    files = ["/etc/passwd", "/etc/hostname", str(tmp_path / "data"), ultrafuser.__file__, pytest.__file__, "/proc/1/environ"]
    files += [str(path) for path in Path.home().iterdir() if path.is_file()]
    attack(f"for file in {files!r}: attempt(open, file)")


def test_open_descriptors(isolated: str, tmp_path: Path) -> None:
    """Catches a directory or file of ours that stays open inside."""
    (tmp_path / "file").write_text("precious")
    kept = [os.open(path, os.O_RDONLY) for path in (tmp_path, tmp_path / "file")]
    for descriptor in kept:
        os.set_inheritable(descriptor, True)
    source = """
import os
def content(number):
    assert b"precious" in os.pread(number, 100, 0)
for number in range(2000):
    attempt(lambda: os.open(".", os.O_RDONLY, dir_fd=number))
    attempt(content, number)
"""
    attack(source)
    for descriptor in kept:
        os.close(descriptor)


def test_reading_environment_variables(other_user: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches our environment being handed on, or readable where the kernel shows it."""
    monkeypatch.setenv("SECRET_KEY", "hush")
    command = [sys.executable, "-I", "-S", "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as bystander:  # has it from its start
        source = f"""
import os
def look(folder):
    assert b"hush" in open(f"/proc/{{folder}}/environ", "rb").read()
assert "SECRET_KEY" not in os.environ
try:
    folders = os.listdir("/proc")
except PermissionError:
    folders = ["1", "self"]
for folder in [*folders, os.getppid(), {os.getpid()}, {bystander.pid}]: attempt(look, folder)
"""
        assert attack(source).ok


def test_network(isolated: str, public: Path) -> None:
    """Catches a listener of ours that can be reached, or any of its own: over TCP, UDP, or local sockets of either kind."""
    name, path = f"\0{secrets.token_hex(8)}", str(public / "folder/socket")
    with contextlib.ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        udp, local, abstract = (
            stack.enter_context(socket.socket(family, kind))
            for family, kind in (
                (socket.AF_INET, socket.SOCK_DGRAM), (socket.AF_UNIX, socket.SOCK_DGRAM), (socket.AF_UNIX, socket.SOCK_STREAM)
            )
        )  # fmt: skip
        udp.bind(("127.0.0.1", 0))
        local.bind(path)
        Path(path).chmod(0o777)
        abstract.bind(name)
        abstract.listen()
        source = f"""
import socket
attempt(socket.create_connection, {tcp.getsockname()!r}, 1)
attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", {udp.getsockname()!r}))
attempt(lambda: socket.socket(socket.AF_UNIX).connect({name!r}))
for kind in socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_SEQPACKET:
    attempt(lambda: socket.socket(socket.AF_UNIX, kind).connect({path!r}))
    attempt(lambda: socket.socketpair(socket.AF_UNIX, kind)[0].sendto(b"x", {path!r}))
    attempt(lambda: socket.socketpair(socket.AF_UNIX, kind)[0].connect({path!r}))
attempt(socket.create_connection, ("1.1.1.1", 53), 1)
attempt(socket.getaddrinfo, "python.org", 80)
"""
        assert attack(source).ok
        for receiver in udp, local:
            receiver.setblocking(False)
            with pytest.raises(BlockingIOError):
                receiver.recv(1)
        Path(path).unlink()


@pytest.mark.parametrize("target", ["os.getppid()", "-1", "0", "1"])
def test_killing(level: str, target: str, bystander: subprocess.Popen[bytes]) -> None:
    """Catches a signal that reaches us. (Where no filter works, a program may end its own supervisor.)"""
    source = f"""
import os, signal
for pid in ({bystander.pid}, {os.getpid()}):
    attempt(os.kill, pid, 9)
    attempt(os.killpg, pid, 9)
    attempt(lambda: signal.pidfd_send_signal(os.pidfd_open(pid), 9))
"""
    assert attack(source).ok
    run_program(f"import os\nos.kill({target}, 15)\nos.kill({target}, 9)", limits=QUICK)
    assert bystander.poll() is None and run_program("print('well')").stdout == "well\n"


def test_killing_by_other_means(level: str, bystander: subprocess.Popen[bytes]) -> None:
    """Catches a signal that a file sends on input, and limits, priorities or processors of ours that a program can change."""
    source = f"""
import fcntl, os, resource, signal
for pid in {bystander.pid}, {os.getpid()}, os.getppid():
    reader, writer = os.pipe()
    try:
        fcntl.fcntl(reader, 8, pid)  # F_SETOWN
        fcntl.fcntl(reader, 10, 9)  # F_SETSIG
        fcntl.fcntl(reader, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        os.write(writer, b"x")
    except OSError:
        pass
    attempt(resource.prlimit, pid, resource.RLIMIT_CPU, (0, 0))
    attempt(os.sched_setaffinity, pid, [0])
    attempt(os.setpriority, os.PRIO_PROCESS, pid, 19)
    attempt(os.setpriority, os.PRIO_USER, os.getuid(), 19)
"""
    attack(source)
    assert bystander.poll() is None and run_program("print('well')").stdout == "well\n"


def test_tracing(other_user: str, bystander: subprocess.Popen[bytes]) -> None:
    """Catches a process that a program can attach to or whose memory it can read: ours, or its own supervisor."""
    source = f"""
import ctypes, os
libc = ctypes.CDLL(None)
def trace(pid):
    assert libc.ptrace(16, pid, 0, 0) == 0
def read(pid):
    word = ctypes.c_long()
    place = (ctypes.c_void_p * 2)(id(None), 8)  # None is at the same address in a fork
    assert libc.process_vm_readv(pid, (ctypes.c_void_p * 2)(ctypes.addressof(word), 8), 1, place, 1, 0) > 0
for pid in {{1, os.getppid(), {bystander.pid}, {os.getpid()}}}:
    attempt(trace, pid)
    attempt(read, pid)
    attempt(open, f"/proc/{{pid}}/mem", "rb")
    attempt(os.readlink, f"/proc/{{pid}}/fd/0")
"""
    assert attack(source).ok


@pytest.mark.skipif(not filter.offered(), reason="this machine has no system call filter")
def test_kernel_interfaces(level: str) -> None:
    """Catches parts of the kernel being open that no program needs: they have had most of its faults, or hold memory for ever."""
    source = """
import ctypes, os
libc = ctypes.CDLL(None)
def call(name, *arguments):
    assert getattr(libc, name)(*arguments) >= 0
def number(*arguments):
    assert libc.syscall(*arguments) >= 0
parameters = ctypes.create_string_buffer(120)
attempt(number, 425, 8, parameters)  # io_uring_setup
attempt(call, "shmget", 0, 1 << 20, 0o1600)
attempt(call, "msgget", 0, 0o1600)
attempt(call, "semget", 0, 1, 0o1600)
attempt(call, "mq_open", b"/x", 0o102, 0o600, None)
attempt(call, "inotify_init")
attempt(call, "memfd_create", b"x", 0)
attempt(call, "unshare", 0x10000000)  # CLONE_NEWUSER
attempt(call, "setns", 0, 0)
attempt(call, "mount", b"none", os.getcwd().encode(), b"tmpfs", 0, None)
attempt(call, "personality", 0x0040000)  # ADDR_NO_RANDOMIZE
attempt(os.setsid)
attempt(os.chroot, ".")
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
try:
    status = open("/proc/self/status").read()
except PermissionError:  # Landlock, which itself needs that
    pass
else:
    assert "NoNewPrivs:\\t1" in status
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
levels.works = lambda level: level == {level!r}
stay = 'import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 0, 0, 0, 0); '  # PR_SET_PDEATHSIG: no signal when we end
program = stay + 'os.execv(sys.executable, ["{mark}", "-I", "-S", "-c", "import time; time.sleep(100)"])'
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
