"""The system calls that Python has no functions for."""

from __future__ import annotations

import ctypes
import os

LIBC = ctypes.CDLL(None, use_errno=True)

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_NO_NEW_PRIVS = 1, 4, 8, 38
CAP_DAC_READ_SEARCH = 2
SIGKILL = 9
CAPABILITY_VERSION = 0x20080522
NEW_NAMESPACES = 0x00020000 | 0x04000000 | 0x08000000 | 0x20000000 | 0x40000000  # mount, host name, IPC, processes, network
NEW_USER_NAMESPACE = 0x10000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
MNT_DETACH = 2
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE = 442, -100, 0x8000  # the number is the same on all machines that run Python


def call(name: str, *arguments: object) -> None:
    """Call a function of the C library that returns 0 when all went well; raises OSError otherwise."""
    if getattr(LIBC, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def process_control(option: int, value: int) -> None:
    call("prctl", option, *(ctypes.c_ulong(argument) for argument in (value, 0, 0, 0)))


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
    call(
        "syscall", ctypes.c_long(SYS_MOUNT_SETATTR), ctypes.c_long(AT_FDCWD), ctypes.c_char_p(target.encode()),
        ctypes.c_long(AT_RECURSIVE if below_too else 0), wanted, ctypes.c_long(ctypes.sizeof(wanted)),
    )  # fmt: skip
