"""Chat templates that come with UltraFuser, by name, for specialists whose tokenizer has none (issue 2, part 3)."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from ultrafuser.errors import UserError, did_you_mean
from ultrafuser.io import user_path

FUSED = "_fused"  # the body of every fused chat template, not one to choose


def template_source(name: str) -> str:
    """The Jinja text of the template of this name that comes with the package."""
    return files(__package__).joinpath(f"{name}.jinja").read_text(encoding="utf-8")


def template_names() -> list[str]:
    """The names that `load_template` knows."""
    found = (Path(entry.name) for entry in files(__package__).iterdir())
    return sorted(path.stem for path in found if path.suffix == ".jinja" and not path.name.startswith("_"))


def load_template(name_or_path: str | Path) -> str:
    """The Jinja text of a shipped template, by name, or of a file. Raises `UserError` when it is neither."""
    known = template_names()
    if str(name_or_path) in known:
        return template_source(str(name_or_path))
    try:
        return user_path(name_or_path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, ValueError):
        raise UserError(
            f"template '{name_or_path}' is neither one of {', '.join(known)} nor a readable file"
            f"{did_you_mean(str(name_or_path), known)}"
        ) from None
