"""What is to be seen in the sandbox: what Python needs, read-only, and one empty working directory. How it is started so."""

from __future__ import annotations

import os
import shutil
import site
import sys
from pathlib import Path
from typing import Any

from ultrafuser.sandbox.limits import Limits

INSIDE = Path(__file__).with_name("inside")
SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/etc/ld.so.cache", "/nix/store", "/gnu/store")
DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
FOLDER = "/sandbox"
CAP_SYS_ADMIN = 21
START = "import sys; sys.path.insert(0, sys.argv[1]); from inside.main import main; del sys.path[0]; main()"


def python() -> list[str]:
    """The command that runs the inside. Not the virtual environment's Python: no installed package can be imported."""
    executable = getattr(sys, "_base_executable", None) or sys.executable
    return [os.path.realpath(executable), "-I", "-S", "-B", "-c", START, str(INSIDE.parent)]


def view(limits: Limits) -> dict[str, Any]:
    """Directories and files by their own names. Installed packages are hidden, though `inside` may lie among them."""
    prefix = os.path.realpath(sys.base_exec_prefix)
    own = [f"{prefix}/{name}" for name in ("bin", "lib", "lib64")]
    paths = [*SYSTEM, *(path for path in own if not path.startswith(SYSTEM))]
    return {
        "read_only": [path for path in paths if Path(path).exists()],
        "hidden": [path for path in site.getsitepackages([prefix]) if Path(path).is_dir()],
        "inside": str(INSIDE),
        "devices": list(DEVICES),
        "folder": FOLDER,
        "folder_bytes": limits.folder_bytes,
        "user_namespace": not can_mount(),
    }


def can_mount() -> bool:
    """Whether we are root with the right to mount; then there is no need for a user namespace."""
    status = Path("/proc/self/status").read_text().split()
    return os.geteuid() == 0 and bool(int(status[status.index("CapEff:") + 1], 16) >> CAP_SYS_ADMIN & 1)


def bubblewrap(seen: dict[str, Any]) -> list[str]:
    """The command that starts the inside, as the first process, where ``seen`` is all there is."""
    user = ["--unshare-user", "--uid", "1000", "--gid", "1000"]
    if not seen["user_namespace"]:
        user = ["--cap-drop", "ALL", "--cap-add", "CAP_SETGID", "--cap-add", "CAP_SETUID"]
    return [
        shutil.which("bwrap") or "bwrap", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", *user,
        "--die-with-parent", "--as-pid-1",
        *(word for path in seen["read_only"] for word in bind("--ro-bind", path)),
        *(word for path in seen["hidden"] for word in ("--tmpfs", path)),
        *bind("--ro-bind", seen["inside"]),
        *(word for path in seen["devices"] for word in bind("--dev-bind", path)),
        "--proc", "/proc", "--perms", "1777", "--size", str(seen["folder_bytes"]), "--tmpfs", FOLDER,
        *(word for path in (*seen["hidden"], "/") for word in ("--remount-ro", path)),
        "--chdir", FOLDER, "--", *python(),
    ]  # fmt: skip


def bind(option: str, path: str) -> list[str]:
    """Show ``path``, in directories open to every user; bubblewrap by itself makes them for its own user alone."""
    parents = [str(parent) for parent in reversed(Path(path).parents)][1:]
    return [*(word for parent in parents for word in ("--perms", "0755", "--dir", parent)), option, path, path]
