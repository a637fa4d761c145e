"""Own namespaces without bubblewrap: unshare(2), then a file system of which only what Python needs is visible.

Needs user namespaces (or to be root with all capabilities) and Linux 5.12.
"""

# `pathlib` takes longer to import than all the rest.
# ruff: noqa: PTH103, PTH110, PTH112, PTH120
from __future__ import annotations

import os

from . import kernel
from .nobody import become_nobody
from .watch import MOST_FILES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ROOT = "/tmp"  # where the new root directory is put together, over the old one's
INSIDE_USER = 1000
READ_ONLY, SAFE = 1, kernel.MS_NOSUID | kernel.MS_NODEV


def enter(view: dict[str, Any]) -> None:
    """Return as the first process of the new namespaces; the process that called waits for that and ends as it ends."""
    if view["user_namespace"]:
        become_nobody()
        kernel.process_control(kernel.PR_SET_DUMPABLE, 1)  # or /proc/self/uid_map would still be root's
        user, group = os.geteuid(), os.getegid()
        kernel.call("unshare", kernel.NEW_NAMESPACES | kernel.NEW_USER_NAMESPACE)
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"{INSIDE_USER} {user} 1")
        write("/proc/self/gid_map", f"{INSIDE_USER} {group} 1")
    else:
        kernel.call("unshare", kernel.NEW_NAMESPACES)
    child = os.fork()
    if child:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)
    kernel.process_control(kernel.PR_SET_PDEATHSIG, kernel.SIGKILL)
    build_root(view)
    if view["user_namespace"]:
        kernel.keep_capabilities()


def build_root(view: dict[str, Any]) -> None:
    """Make the file system that ``view`` describes and leave the old one."""
    sources = {path: os.open(path, os.O_PATH) for path in (*view["read_only"], view["inside"], *view["devices"])}
    os.umask(0o022)
    kernel.mount("none", "/", flags=kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", ROOT, "tmpfs", SAFE, "size=1m,mode=755")
    for path in view["read_only"]:
        bind(path, sources[path], READ_ONLY | SAFE)
    for path in view["hidden"]:
        kernel.mount("tmpfs", ROOT + path, "tmpfs", SAFE, "size=1m,mode=755")
    bind(view["inside"], sources[view["inside"]], READ_ONLY | SAFE)
    for path in view["devices"]:
        bind(path, sources[path], kernel.MS_NOSUID)
    os.makedirs(ROOT + "/proc")
    kernel.mount("proc", ROOT + "/proc", "proc", SAFE | kernel.MS_NOEXEC)
    os.makedirs(ROOT + view["folder"])
    size = f"size={view['folder_bytes']},nr_inodes={MOST_FILES},mode=1777"
    kernel.mount("tmpfs", ROOT + view["folder"], "tmpfs", SAFE, size)
    for path in ("", *view["hidden"]):
        kernel.set_mount_attributes(ROOT + path, READ_ONLY, below_too=False)
    os.chdir(ROOT)
    kernel.call("pivot_root", b".", b".")  # the old root now lies over the new one
    kernel.call("umount2", b".", kernel.MNT_DETACH)
    os.chdir(view["folder"])


def bind(path: str, source: int, attributes: int) -> None:
    target = ROOT + path
    if os.path.isdir(f"/proc/self/fd/{source}"):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        write(target, "")
    kernel.mount(f"/proc/self/fd/{source}", target, flags=kernel.MS_BIND | kernel.MS_REC)
    kernel.set_mount_attributes(target, attributes, below_too=True)
    os.close(source)


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
