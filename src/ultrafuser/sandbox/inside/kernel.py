"""The system calls that Python has no functions for."""

from __future__ import annotations

import ctypes
import os
import struct

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.argtypes = (ctypes.c_long, *[ctypes.c_void_p] * 5)
LIBC.syscall.restype = ctypes.c_long

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_NO_NEW_PRIVS = 1, 4, 8, 38
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
OWN_PROCESS = b"own!"
CAP_DAC_READ_SEARCH = 2
SIGKILL = 9
CAPABILITY_VERSION = 0x20080522
NEW_NAMESPACES = 0x00020000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000  # mount, host name, IPC, processes, network
NEW_USER_NAMESPACE = 0x10000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH = 2
SYS_LANDLOCK_RESTRICT_SELF = 446
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE = 442, -100, 0x8000  # the number is the same on all machines that run Python


def call(name: str, *arguments: object) -> None:
    """Call a function of the C library that returns 0 when all went well; raises OSError otherwise."""
    if getattr(LIBC, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def system_call(number: int, *arguments: object) -> int:
    """For those that the C library has no function for: whole numbers, bytes and arrays, five at most. Raises OSError."""
    result = int(LIBC.syscall(number, *arguments, *[0] * (5 - len(arguments))))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"system call {number}: {os.strerror(error)}")
    return result


def process_control(option: int, value: int, address: int = 0) -> None:
    call("prctl", option, *(ctypes.c_ulong(argument) for argument in (value, address, 0, 0)))


def set_system_call_filter(code: bytes) -> None:
    """For good. ``code``: the instructions, eight bytes each; in them OWN_PROCESS stands for the number of this process."""
    code = code.replace(OWN_PROCESS, struct.pack("I", os.getpid()))
    instructions = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("HP", len(code) // 8, ctypes.addressof(instructions)))
    process_control(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(program))


def restrict_to(rules: int) -> None:
    """Put this process and what it starts under a set of rules of `landlock.py`, for good."""
    system_call(SYS_LANDLOCK_RESTRICT_SELF, rules, 0)


def keep_capabilities(*kept: int) -> None:
    """Give up every capability but these."""
    mask = sum(1 << capability for capability in kept)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    call("capset", header, (ctypes.c_uint32 * 6)(mask, mask, 0, 0, 0, 0))  # effective, permitted, inheritable; twice


def mount(source: str, target: str, kind: str | None = None, flags: int = 0, options: str = "") -> None:
    call(
        "mount", source.encode(), target.encode(), kind.encode() if kind else None, ctypes.c_ulong(flags), options.encode()
    )  # fmt: skip


def set_mount_attributes(target: str, attributes: int, *, below_too: bool) -> None:
    """Linux 5.12 or newer. The attributes are the first three flags of `mount`: 1 is read-only."""
    wanted = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    flags = AT_RECURSIVE if below_too else 0
    system_call(SYS_MOUNT_SETATTR, AT_FDCWD, target.encode(), flags, wanted, ctypes.sizeof(wanted))
