"""AGIEval's options for the likelihood reading, written as the harness's own agieval tasks have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def lettered(doc: Mapping[str, Any]) -> list[str]:
    """The options with their letters, "(A)5" and so on."""
    return [f"({letter}){choice}" for letter, choice in zip(doc["choice_labels"], doc["choices"], strict=True)]


def gold(doc: Mapping[str, Any]) -> int:
    """The number of the right option."""
    return list(doc["choice_labels"]).index(doc["label"])
