"""Named templates and template files."""

from __future__ import annotations

from pathlib import Path

import pytest

from ultrafuser.errors import UserError
from ultrafuser.tokens.templates import load_template, template_names


def test_templates_are_found_by_name_or_as_a_file(tmp_path: Path) -> None:
    """Catches a template left out of the package and a file that is not read."""
    assert template_names() == ["alpaca", "chatml", "codellama", "llama3", "plain", "ultralm2"]
    own = tmp_path / "own.jinja"
    own.write_text("{{ messages[0].content }}")
    assert load_template(own) == "{{ messages[0].content }}"
    assert "[INST]" in load_template("codellama")


def test_an_unknown_template_names_those_known(tmp_path: Path) -> None:
    """Catches a traceback on a mistyped name, a missing file, a directory."""
    with pytest.raises(UserError, match=r"'lama3' is neither one of alpaca, .* did you mean 'llama3'"):
        load_template("lama3")
    with pytest.raises(UserError, match="nor a readable file"):
        load_template(tmp_path)
