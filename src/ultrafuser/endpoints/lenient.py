"""JSON as language models write it: prose around it, code fences, trailing commas, single quotes, cut off in the middle."""

from __future__ import annotations

import json
import re
from typing import Any

from ultrafuser.endpoints.thoughts import without_thoughts
from ultrafuser.errors import UserError

_FENCE = re.compile(r"```[a-zA-Z]*\s*\n(.*?)(?:```|\Z)", re.DOTALL)
_START = re.compile(r"[\[{]")


def parse_json(text: str) -> Any:
    """The object or list in ``text``. Raises `ValueError` if there is none.

    Thoughts do not count. What is valid is read as it is; the rest is repaired, so a list that was cut off lacks its end: check
    what you get.
    """
    text = without_thoughts(text)
    fence = _FENCE.search(text)
    for candidate in ([fence.group(1)] if fence else []) + [text]:
        for start in _START.finditer(candidate):
            try:
                value, _ = json.JSONDecoder(strict=False).raw_decode(candidate, start.start())
            except ValueError:
                break  # the first one is what must be repaired
            return value
    return _repaired(fence.group(1) if fence else text)


def _repaired(text: str) -> Any:
    try:
        import json_repair
    except ImportError:
        raise UserError("a model's JSON needs json-repair: pip install 'ultrafuser[eval]' or 'ultrafuser[synth]'") from None
    start = _START.search(text)
    value = json_repair.loads(text[start.start() :]) if start else None
    if not isinstance(value, (dict, list)) or not value:
        raise ValueError(f"no JSON in {text[:80]!r}")
    return value
