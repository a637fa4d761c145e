"""The system call filter: what its program decides, by a slow and obvious interpreter of BPF, and what the kernel does."""

from __future__ import annotations

import errno
import os
import random
import re
import struct
from pathlib import Path

import pytest

from ultrafuser.sandbox import Limits, run_program
from ultrafuser.sandbox import filter as system_call_filter
from ultrafuser.sandbox.inside.kernel import OWN_PROCESS
from ultrafuser.sandbox.system_calls import ATTRIBUTES, NEW_PROCESSES, NUMBERS, conditions

OWN = 4242
ALLOW, KILL = "allow", "kill"
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003, "arm": 0x40000028}
HEADERS = {"x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "aarch64": "/usr/include/asm-generic/unistd.h"}
# From the kernel's tables: the numbers on x86_64 and aarch64.
DANGEROUS = {
    "socket": (41, 198), "connect": (42, 203), "accept": (43, 202), "sendmsg": (46, 211), "bind": (49, 200), "listen": (50, 201),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_send_signal": (424, 424),
    "rt_sigqueueinfo": (129, 138), "mount": (165, 40), "unshare": (272, 97), "setns": (308, 268), "clone3": (435, 435),
    "chroot": (161, 51), "pivot_root": (155, 41), "keyctl": (250, 219), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "io_uring_setup": (425, 425), "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190),
    "init_module": (175, 105), "finit_module": (313, 273), "open_by_handle_at": (304, 265), "setuid": (105, 146),
    "setsid": (112, 157), "setpgid": (109, 154), "setpriority": (141, 140), "sched_setaffinity": (203, 122),
    "truncate": (76, 45), "openat2": (437, 437), "memfd_create": (319, 279), "inotify_init1": (294, 26), "seccomp": (317, 277),
}  # fmt: skip


def decision(program: list[tuple[int, int, int, int]], machine: str, number: int, arguments: list[int]) -> str | int:
    """What the kernel does: allow, kill, or the number of the error."""
    data = struct.pack("<IIQ6Q", number, ARCHITECTURES[machine], 0x1234567812345678, *arguments)
    accumulator = at = 0
    while True:
        code, if_true, if_false, operand = program[at]
        at += 1
        if code == 0x20:  # load a word
            accumulator = int.from_bytes(data[operand : operand + 4], "little")
        elif code == 0x54:  # and
            accumulator &= operand
        elif code == 0x15:  # is equal
            at += if_true if accumulator == operand else if_false
        elif code == 0x35:  # is greater or equal
            at += if_true if accumulator >= operand else if_false
        else:
            assert code == 0x06, "an instruction that this filter does not need"
            return {0x7FFF0000: ALLOW, 0x80000000: KILL}.get(operand) or operand - 0x50000


def expected(name: str | None, arguments: list[int], *, processes: bool, attributes: bool) -> str | int:
    if name is None:
        return errno.ENOSYS
    if name in NEW_PROCESSES and not processes:
        return errno.EAGAIN
    held = all(arguments[i] & mask in values for i, mask, values in conditions(OWN).get(name, []))
    return ALLOW if held and (attributes or name not in ATTRIBUTES) else errno.EPERM


def some_arguments(rng: random.Random, name: str | None) -> list[int]:
    """Half of them such as the call may have."""
    arguments = [rng.choice([0, 1, 2, 16, 1 << 33, rng.getrandbits(64)]) for _ in range(6)]
    for index, mask, values in conditions(OWN).get(name or "", []):
        if rng.random() < 0.7:
            arguments[index] = rng.choice(values) | rng.getrandbits(64) & ~mask
    return arguments


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize(("processes", "attributes"), [(False, False), (True, True)])
def test_every_call_is_decided_as_the_table_says(machine: str, processes: bool, attributes: bool) -> None:
    """Catches a jump that leads elsewhere, an argument, mask or value mixed up, and a call of the other machine's table."""
    rng = random.Random(0)
    program = system_call_filter.program(machine, OWN, processes=processes, attributes=attributes)
    names = {numbers[machine == "aarch64"]: name for name, numbers in NUMBERS.items()}
    seen = set()
    for number in range(700):
        for _ in range(30 if names.get(number) in conditions(OWN) else 2):
            arguments = some_arguments(rng, names.get(number))
            lower = [argument & 0xFFFFFFFF for argument in arguments]
            wanted = expected(names.get(number), lower, processes=processes, attributes=attributes)
            assert decision(program, machine, number, arguments) == wanted, (number, arguments)
            seen.add(wanted)
    assert seen == {ALLOW, errno.ENOSYS, errno.EPERM} | (set() if processes else {errno.EAGAIN})
    assert len(program) <= 4096


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_numbers_are_those_of_the_kernel(machine: str) -> None:
    """Catches a mistyped number, by which another call would be allowed."""
    header = Path(HEADERS[machine])
    if not header.exists():
        pytest.skip("the kernel's headers are not installed")
    known = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text()))
    if machine == "aarch64":
        known |= {"newfstatat": known["fstatat"]}
    ours = {name: numbers[machine == "aarch64"] for name, numbers in NUMBERS.items()}
    assert {name: str(number) for name, number in ours.items() if number is not None} == {
        name: known[name] for name, number in ours.items() if number is not None
    }
    # A call that a machine lacks has no number there. (The general table has two that no 64-bit machine uses.)
    assert {name for name, number in ours.items() if number is None} & set(known) == set()


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_dangerous_calls_do_not_exist(machine: str) -> None:
    """Catches a call in the table that acts on other processes, the network, users, or parts of the kernel nobody needs."""
    program = system_call_filter.program(machine, OWN, processes=True, attributes=True)
    for name, numbers in DANGEROUS.items():
        assert decision(program, machine, numbers[machine == "aarch64"], [0] * 6) == errno.ENOSYS, name


@pytest.mark.parametrize(
    ("name", "arguments", "allowed"),
    [
        ("kill", [OWN, 9], True),
        ("kill", [OWN | 7 << 32, 9], True),  # the kernel does not look at these bits either
        ("kill", [0, 9], False),
        ("kill", [0xFFFFFFFF, 9], False),
        ("kill", [-OWN & 0xFFFFFFFF, 9], False),
        ("tgkill", [OWN, OWN + 1, 6], True),
        ("tgkill", [OWN + 1, OWN + 1, 6], False),
        ("clone", [0x01200011], True),  # fork
        ("clone", [0x003D0F00], True),  # a thread
        ("clone", [0x10000011], False),  # a user namespace
        ("clone", [0x02000011], False),  # a control group namespace
        ("clone", [0x00008011], False),  # a child of our supervisor
        ("socketpair", [1, 1 | 0o2000000 | 0o4000], True),
        ("socketpair", [1, 2], False),
        ("socketpair", [2, 1], False),
        ("fcntl", [3, 8, 1], False),  # F_SETOWN
        ("fcntl", [3, 10, 9], False),  # F_SETSIG
        ("ioctl", [0, 0x5412], False),  # TIOCSTI
        ("prctl", [1, 0], False),  # PR_SET_PDEATHSIG
        ("prlimit64", [0, 7], True),
        ("prlimit64", [OWN, 7], False),
        ("openat", [0, 0, 0o1101], True),
        ("openat", [0, 0, 0o1000], False),
    ],
)
def test_arguments_that_matter(name: str, arguments: list[int], allowed: bool) -> None:
    """Catches conditions in the table itself that are too wide or too narrow."""
    for column, machine in enumerate(("x86_64", "aarch64")):
        program = system_call_filter.program(machine, OWN, processes=True, attributes=True)
        outcome = decision(program, machine, NUMBERS[name][column] or 0, [*arguments, *[0] * (6 - len(arguments))])
        assert outcome == (ALLOW if allowed else errno.EPERM)


def test_another_way_into_the_kernel_kills() -> None:
    """Catches calls by which the numbers mean something else: of 32 bits, of x32, or of the other machine."""
    for machine in "x86_64", "aarch64":
        program = system_call_filter.program(machine, OWN, processes=True, attributes=True)
        for other in set(ARCHITECTURES) - {machine}:
            assert {decision(program, other, number, [0] * 6) for number in range(500)} == {KILL}
        assert {decision(program, machine, 0x40000000 + number, [0] * 6) for number in range(600)} == {KILL}


UNFILTERED = {335, 336}  # on x86_64: probes' own calls, which the kernel lets past all filters and which kill who makes them
needs_filter = pytest.mark.skipif(not system_call_filter.offered(), reason="this machine has no system call filter")


@needs_filter
def test_code_leaves_open_only_the_own_process() -> None:
    """Catches other bytes of the program being taken for the place of the own process's number."""
    for processes in False, True:
        code = system_call_filter.code(processes=processes, attributes=True) or b""
        program = system_call_filter.program(os.uname().machine, OWN, processes=processes, attributes=True)
        filled = code.replace(OWN_PROCESS, struct.pack("=I", OWN))
        assert list(struct.iter_unpack("=HBBI", filled)) == program and code.count(OWN_PROCESS) == 3


@needs_filter
def test_the_kernel_refuses_all_other_calls(level: str) -> None:
    """Catches a filter that is not there at some level, or that the kernel reads differently from the interpreter above."""
    column = system_call_filter.MACHINES[os.uname().machine][0]
    others = sorted(set(range(600)) - {numbers[column] for numbers in NUMBERS.values()} - UNFILTERED)
    source = f"""
import ctypes
call = ctypes.CDLL(None, use_errno=True).syscall
for number in {others}:
    assert call(number, 0, 0, 0, 0, 0, 0) == -1 and ctypes.get_errno() == {errno.ENOSYS}, number
"""
    result = run_program(source)
    assert result.ok, result.stderr


@needs_filter
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="other ways into the kernel exist on x86_64")
@pytest.mark.parametrize(
    "attack",
    [
        "call(0x40000000 + 39)",  # getpid as x32
        # mov eax, 20 (getpid of 32 bits); int 0x80; ret
        "code = mmap.mmap(-1, 4096, prot=7); code.write(bytes.fromhex('b814000000cd80c3'))\n"
        "ctypes.CFUNCTYPE(int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()",
    ],
)
def test_the_kernel_kills_for_other_ways_in(level: str, attack: str) -> None:
    """Catches a filter that looks at numbers only."""
    result = run_program(f"import ctypes, mmap\ncall = ctypes.CDLL(None).syscall\nprint('here', flush=True)\n{attack}")
    assert (result.stdout, result.returncode) == ("here\n", -31), result  # SIGSYS


def test_what_ordinary_programs_do_goes_on_working(level: str) -> None:
    """Catches a call missing in the table that the standard library makes."""
    source = """
import asyncio, fcntl, mmap, os, pathlib, queue, select, selectors, signal, sqlite3, subprocess, tempfile, threading, time
async def ticks():
    await asyncio.sleep(0.001)
    process = await asyncio.create_subprocess_exec("/bin/sh", "-c", "echo 42", stdout=subprocess.PIPE)
    return (await process.communicate())[0]
assert asyncio.run(ticks()) == b"42\\n"
with tempfile.TemporaryDirectory() as folder:
    file = pathlib.Path(folder, "a")
    file.write_text("abc" * 1000)
    file.rename(file.with_name("b"))
    os.symlink("b", file)
    with open(file, "r+b") as opened, mmap.mmap(opened.fileno(), 0) as view:
        view[:3] = b"xyz"
        view.flush()
        fcntl.flock(opened, fcntl.LOCK_EX)
        opened.truncate(3)
    assert file.read_text() == "xyz" and sorted(os.listdir(folder)) == ["a", "b"]
    database = sqlite3.connect(f"{folder}/c")
    database.execute("create table t (x)")
    database.execute("insert into t values (7)")
    database.commit()
    assert list(database.execute("select * from t")) == [(7,)]
found = queue.Queue()
thread = threading.Thread(target=lambda: found.put(1))
thread.start()
thread.join()
assert found.get() == 1
signal.signal(signal.SIGALRM, lambda *_: found.put(2))
signal.setitimer(signal.ITIMER_REAL, 0.001)
assert found.get(timeout=5) == 2
signal.signal(signal.SIGUSR1, lambda *_: found.put(3))
signal.raise_signal(signal.SIGUSR1)
os.kill(os.getpid(), signal.SIGUSR1)
assert found.get() + found.get() == 6
reader, writer = os.pipe()
os.write(writer, b"x")
assert select.select([reader], [], [], 1)[0] == [reader] and not os.isatty(reader)
with selectors.DefaultSelector() as selector:
    selector.register(reader, selectors.EVENT_READ)
    assert selector.select(1)
assert subprocess.run("echo $((1 + 1))", shell=True, capture_output=True).stdout == b"2\\n"
time.sleep(0.001)
"""
    result = run_program(source, limits=Limits(wall_seconds=30.0, cpu_seconds=10.0, processes=8))
    assert result.ok, result.stderr
