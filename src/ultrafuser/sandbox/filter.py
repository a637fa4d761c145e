"""The system call filter: it leaves a program only the calls in `system_calls.py` (seccomp, in the classic BPF).

Offered on x86_64 and aarch64. A call in another architecture's way (32 bits, x32), whose numbers mean something else, kills.
"""

from __future__ import annotations

import errno
import functools
import os
import struct
import sys
from collections.abc import Iterable

from ultrafuser.sandbox.inside import kernel
from ultrafuser.sandbox.system_calls import AARCH64, ATTRIBUTES, NEW_PROCESSES, NUMBERS, X86_64, Condition, conditions

Instruction = tuple[int, int, int, int]  # code, instructions to skip where a comparison holds, where not, operand

MACHINES = {"x86_64": (X86_64, 0xC000003E), "aarch64": (AARCH64, 0xC00000B7)}  # column, the kernel's name of the architecture
X32 = 0x40000000
NUMBER, ARCHITECTURE, ARGUMENTS = 0, 4, 16  # where a filter finds them; an argument has 8 bytes, the lower ones first
LOAD, AND, IF_EQUAL, IF_AT_LEAST, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
ALLOW, KILL = (RETURN, 0, 0, 0x7FFF0000), (RETURN, 0, 0, 0x80000000)


def program(machine: str, own: int, *, processes: bool, attributes: bool) -> list[Instruction]:
    """The filter of the process ``own``: may it start ``processes``, and change the ``attributes`` of files?

    Refused is with EPERM a call whose arguments are, with EAGAIN a new process, with ENOSYS (for which C libraries have other
    ways) all that is not known here.
    """
    column, architecture = MACHINES[machine]
    checks = conditions(own)
    instructions = [(LOAD, 0, 0, ARCHITECTURE), (IF_EQUAL, 1, 0, architecture), KILL, (LOAD, 0, 0, NUMBER)]
    instructions += [(IF_AT_LEAST, 0, 1, X32), KILL]
    for name, numbers in NUMBERS.items():
        number = numbers[column]
        if number is None:
            continue
        if name in NEW_PROCESSES and not processes:
            rule = [refuse(errno.EAGAIN)]
        elif name in ATTRIBUTES and not attributes:
            rule = [refuse(errno.EPERM)]
        else:
            rule = [*require(checks.get(name, ())), ALLOW]
        instructions += [(IF_EQUAL, 0, len(rule), number), *rule]
    return [*instructions, refuse(errno.ENOSYS)]


def refuse(number: int) -> Instruction:
    return RETURN, 0, 0, 0x00050000 | number


def require(checks: Iterable[Condition]) -> list[Instruction]:
    """Go on where all checks hold. Of each argument the kernel, too, takes the lower 32 bits only."""
    instructions: list[Instruction] = []
    for argument, mask, values in checks:
        instructions += [(LOAD, 0, 0, ARGUMENTS + 8 * argument), (AND, 0, 0, mask)]
        instructions += [(IF_EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]
        instructions.append(refuse(errno.EPERM))
    return instructions


def offered() -> bool:
    """Whether this machine and its kernel have such filters."""
    if os.uname().machine not in MACHINES or sys.maxsize < 2**32:
        return False
    try:
        kernel.process_control(kernel.PR_SET_SECCOMP, kernel.SECCOMP_MODE_FILTER)
    except OSError as error:
        return error.errno == errno.EFAULT  # it would take a filter, but from another place
    return False


@functools.cache
def code(*, processes: bool, attributes: bool) -> bytes | None:
    """The filter as the sandbox sets it, on the process that it then is for; None where there is none."""
    if not offered():
        return None
    own = int.from_bytes(kernel.OWN_PROCESS, sys.byteorder)
    instructions = program(os.uname().machine, own, processes=processes, attributes=attributes)
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)
