"""HTML pages that are one file each and load nothing: the frame, the style sheet and the pieces that all reports share.

A package that makes a page has a folder of templates; they extend ``page.html`` (blocks ``title``, ``style``, ``content``,
``scripts``), import ``parts.html``, and know the palette: ``dot0``, ``fill0``, ``line0``, .. are the first ``shown`` colours.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ultrafuser.pages import palette

SHARED = Path(__file__).parent / "templates"


def render(folder: Path, template: str, *, shown: int, **values: Any) -> str:
    """Fill ``folder``/``template`` with ``values``; what they hold is escaped unless it is `markupsafe.Markup`.

    Args:
        folder: the templates of the calling package; those of this package can be extended, imported and included too.
        template: file name in ``folder``.
        shown: how many colours of the palette the page uses.
    """
    environment = Environment(
        loader=FileSystemLoader([folder, SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(color=palette.color, line_color=palette.line_color, ink=palette.INK)
    environment.filters["clean"] = palette.clean
    return environment.get_template(template).render(shown=shown, **values)
