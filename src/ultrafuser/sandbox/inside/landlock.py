"""Landlock: what of the file system, the network and other processes a program may reach, without any namespace (Linux 5.13).

A rule gives rights to a directory and all below it; what no rule names is out of reach. Versions of Landlock differ in what they
know of; what an older one does not (emptying files, TCP, signals, abstract sockets), the filter of system calls refuses as well,
and what none knows (modes and times of files, all other sockets), that alone.
"""

from __future__ import annotations

import os
import stat
import struct

from . import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

CREATE_RULESET, ADD_RULE = 444, 445  # the numbers are the same on all machines that run Python
VERSION, PATH_BENEATH = 1, 1
EXECUTE, WRITE_FILE, READ_FILE, READ_DIRECTORY, TRUNCATE, IOCTL = 1, 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 15
ON_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL
READ = EXECUTE | READ_FILE | READ_DIRECTORY


def version() -> int:
    """Raises OSError where the kernel has no Landlock, or it is switched off."""
    return kernel.system_call(CREATE_RULESET, None, 0, VERSION)


def known(version: int) -> tuple[int, int, int]:
    """What this version can keep a program from, as bits: uses of files, of TCP (bind, connect), reaching abroad (abstract
    sockets, signals)."""
    files = (1 << (13, 14, 15, 15, 16)[min(version, 5) - 1]) - 1
    return files, 0b11 if version >= 4 else 0, 0b11 if version >= 6 else 0


def ruleset(view: dict[str, Any], version: int) -> int:
    """For `kernel.restrict_to`: a descriptor of rules that show what ``view`` describes, and open the working directory."""
    files, *others = known(version)
    attributes = struct.pack("QQQ", files, *others)[: 8 if version < 4 else 16 if version < 6 else 24]
    rules = kernel.system_call(CREATE_RULESET, attributes, len(attributes), 0)
    for path, rights in readable(view):
        allow(rules, path, rights)
    for path in view["devices"]:
        allow(rules, path, READ_FILE | WRITE_FILE)
    allow(rules, os.curdir, files)
    return rules


def readable(view: dict[str, Any]) -> Iterator[tuple[str, int]]:
    hidden = {os.path.realpath(path) for path in view["hidden"]}
    for path in {os.path.realpath(path) for path in view["read_only"]}:
        yield from around(path, hidden)
    yield view["inside"], READ


def around(path: str, hidden: set[str]) -> Iterator[tuple[str, int]]:
    """Rules for ``path`` and what is below, without the hidden. (Names in hidden directories can be listed, not more.)"""
    inner = {place for place in hidden if f"{place}/".startswith(f"{path}/")}
    if not inner:
        yield path, READ
    elif path not in inner:
        yield path, READ_DIRECTORY
        for entry in os.scandir(path):
            if not entry.is_symlink():  # else the rule would be for what it leads to
                yield from around(entry.path, inner)


def allow(rules: int, path: str, rights: int) -> None:
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    if not stat.S_ISDIR(os.fstat(place).st_mode):
        rights &= ON_FILES
    kernel.system_call(ADD_RULE, rules, PATH_BENEATH, struct.pack("=Qi", rights, place), 0)
    os.close(place)
