"""Fenced code blocks of an answer, as CommonMark reads them, and the prose that is left without them."""

from __future__ import annotations

import re
from dataclasses import dataclass

FENCE = re.compile(r"^ {0,12}(`{3,}|~{3,})[ \t]*([^`\n]*)$")  # deeper than CommonMark's 3 spaces: fences in lists are common


@dataclass(frozen=True)
class Block:
    """A fenced block: the first word after the opening fence in lower case, the lines within, and whether it was closed."""

    language: str
    code: str
    closed: bool


@dataclass(frozen=True)
class Document:
    """The fenced blocks of a text, and its other lines."""

    blocks: tuple[Block, ...]
    prose: str


def read_markdown(text: str) -> Document:
    """Split ``text`` into fenced blocks and prose. A fence of the same kind ends a block, alone on its line."""
    blocks: list[Block] = []
    prose: list[str] = []
    inside: list[str] = []
    fence = language = ""
    for line in text.split("\n"):
        match = FENCE.match(line) if line.lstrip()[:3] in ("```", "~~~") else None
        if not fence and match:
            fence, language, inside = match[1], _first_word(match[2]), []
        elif not fence:
            prose.append(line)
        elif match and match[1].startswith(fence) and not match[2].strip():
            blocks.append(Block(language, "\n".join(inside), closed=True))
            fence = ""
        else:
            inside.append(line)
    if fence:
        blocks.append(Block(language, "\n".join(inside), closed=False))
    return Document(tuple(blocks), "\n".join(prose))


def _first_word(info: str) -> str:
    words = info.replace("{", " ").replace("}", " ").replace(",", " ").split()
    return words[0].lstrip(".").lower() if words else ""
