"""Landlock's rules: which files they show, at every version of Landlock that this kernel can play."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from ultrafuser.sandbox import Limits
from ultrafuser.sandbox.inside import landlock
from ultrafuser.sandbox.view import INSIDE, python, view


def versions() -> list[int]:
    try:
        return list(range(1, landlock.version() + 1))
    except OSError:
        return []


def test_rules_show_all_but_the_hidden(tmp_path: Path) -> None:
    """Catches a rule that shows what is hidden (also by a link), or one missing."""
    shown, hidden, other = tmp_path / "lib", tmp_path / "lib/python/packages", tmp_path / "other"
    for folder in shown / "python/inner", hidden / "inner", shown / "more", other:
        folder.mkdir(parents=True)
        for file in folder / "file", folder.parent / "beside":
            file.touch()
    (shown / "link").symlink_to(other)
    (shown / "python/link").symlink_to(hidden)
    (tmp_path / "alias").symlink_to(shown)
    seen = {"read_only": [str(shown), str(tmp_path / "alias")], "hidden": [str(hidden)], "inside": str(hidden / "inner")}
    rules = dict(landlock.readable(seen))
    for file in (path for path in tmp_path.rglob("*") if path.is_file() and not path.is_symlink()):
        rights = sum({rules.get(str(place), 0) for place in (file, *file.parents)})
        wanted = shown in file.parents and (hidden not in file.parents or hidden / "inner" in file.parents)
        assert bool(rights & landlock.READ_FILE) == wanted, file
    assert not set(rules) & {str(other), str(tmp_path)}


def test_rights_of_the_versions() -> None:
    """Catches asking an old kernel for what it does not know, or a new one for less than it knows. Values: landlock.h."""
    assert landlock.known(1) == (0x1FFF, 0, 0) and landlock.known(2)[0] == 0x3FFF and landlock.known(3) == (0x7FFF, 0, 0)
    assert landlock.known(4) == (0x7FFF, 3, 0) and landlock.known(5) == (0xFFFF, 3, 0) and landlock.known(6) == (0xFFFF, 3, 3)
    header = Path("/usr/include/linux/landlock.h")
    if header.exists():
        known = dict(re.findall(r"#define LANDLOCK_ACCESS_FS_(\w+)\s+\(1ULL << (\d+)\)", header.read_text()))
        ours = {"EXECUTE": 1, "WRITE_FILE": 2, "READ_FILE": 4, "READ_DIR": 8, "TRUNCATE": 1 << 14, "IOCTL_DEV": 1 << 15}
        assert {name: 1 << int(bit) for name, bit in known.items() if name in ours}.items() <= ours.items()


@pytest.mark.parametrize("version", versions())
def test_every_version_confines(version: int, tmp_path: Path) -> None:
    """Catches rules that an older kernel would refuse, or that leave files or (where it can) TCP and signals open."""
    (tmp_path / "work").mkdir()
    (tmp_path / "secret").write_text("secret")
    source = f"""
import json, os, socket, sys
sys.path.insert(0, {str(INSIDE.parent)!r})
from inside import kernel, landlock
kernel.process_control(kernel.PR_SET_NO_NEW_PRIVS, 1)
kernel.restrict_to(landlock.ruleset(json.loads(sys.argv[1]), {version}))
def fails(attack, *arguments):
    try:
        attack(*arguments)
    except PermissionError:
        return True
    except OSError:
        return False
    return False
open("f", "w").write("x")
assert open("f").read() == "x" and fails(open, "../secret") and fails(open, "../f", "w") and fails(os.listdir, "/")
assert fails(os.unlink, "../secret") and fails(os.rename, "f", "../f") and os.listdir() == ["f"]
import statistics
tcp = fails(socket.create_connection, ("127.0.0.1", 9)), fails(socket.create_server, ("127.0.0.1", 0))
print(json.dumps([*tcp, fails(os.kill, os.getppid(), 0)]))
"""
    command = [python()[0], "-I", "-S", "-c", source, json.dumps(view(Limits()))]
    result = subprocess.run(command, cwd=tmp_path / "work", capture_output=True, text=True, check=True, env={})
    assert json.loads(result.stdout) == [version >= 4, version >= 4, version >= 6]
