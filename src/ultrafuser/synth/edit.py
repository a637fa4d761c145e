"""Changing texts by hand: all at once in the user's editor, or line by line where there is none."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ultrafuser.errors import UserError
from ultrafuser.synth.keyboard import Keyboard, Terminal

HEAD = "===== {} ====="
HEADS = re.compile(r"^===== (\w+) =====$", re.MULTILINE)


def edited(texts: Mapping[str, str], keyboard: Keyboard) -> dict[str, str]:
    """The texts that were changed, by name. Raises `UserError` if the editor fails."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if editor and isinstance(keyboard, Terminal):
        new = from_sheet(_in_editor(editor, to_sheet(texts)))
    else:
        new = {name: keyboard.line(f"{name} (empty: leave it as it is):") for name in texts}
    return {name: text for name, text in new.items() if text and text != texts.get(name, "") and name in texts}


def to_sheet(texts: Mapping[str, str]) -> str:
    """All texts in one, each below a line with its name."""
    return "".join(f"{HEAD.format(name)}\n{text}\n" for name, text in texts.items())


def from_sheet(sheet: str) -> dict[str, str]:
    """The inverse of `to_sheet`, without white space around the texts."""
    _, *parts = HEADS.split(sheet)
    return {name: text.strip() for name, text in zip(parts[::2], parts[1::2], strict=True)}


def _in_editor(editor: str, sheet: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "edit.md"
        file.write_text(sheet, encoding="utf-8")
        try:
            subprocess.run([*shlex.split(editor), str(file)], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise UserError(f"the editor '{editor}' failed ({error}); set EDITOR to one that works") from None
        return file.read_text(encoding="utf-8", errors="replace")
