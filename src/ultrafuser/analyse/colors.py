"""Tokens in the colours of the specialists that produced them (the paper's figures 8 and 9): terminal, HTML and SVG.

Every specialist has a colour of `pages.palette` and a token's background is their mix, weighted by the gate. Mixing is done in
linear light, where luminance is linear too, so no mix is darker than the darkest of the palette: dark ink is legible on all.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

from ultrafuser.analyse.trace import END_MARK, TokenTrace
from ultrafuser.pages.palette import INK, clean, color, hex_color, linear


def blend(weights: Sequence[float] | Any) -> str:
    """The mix of the specialists' colours for one token: ``weights`` (N,), not negative, need not sum to 1; ``#rrggbb``."""
    own = np.asarray(weights, dtype=float)
    own = own / own.sum()
    return hex_color(own @ np.array([linear(color(place)) for place in range(len(own))]))


def weights_text(weights: Sequence[float] | Any, specialists: Sequence[str]) -> str:
    """``text 91% · code 6% · math 3%``."""
    return " · ".join(f"{name} {100 * float(weight):.0f}%" for name, weight in zip(specialists, weights, strict=True))


def tokens_rich(trace: TokenTrace, specialists: Sequence[str]) -> Text:
    """The answer for a terminal, every token on its colour; ``specialists`` only checks that there is a name per weight."""
    _require_names(trace, specialists)
    text = Text()
    for token, weights in zip(trace.tokens, trace.weights, strict=True):
        style = Style(color=INK, bgcolor=blend(weights))
        # A line break shows as a mark in its colour; the break itself has none, or the rest of the line would be filled.
        for number, part in enumerate(clean(token).split("\n")):
            if number:
                text.append("↵", style)
                text.append("\n")
            text.append(part, style)
    return text


def legend_rich(specialists: Sequence[str]) -> Text:
    """One line with every specialist's name on its colour."""
    parts = [Text(f" {name} ", Style(color=INK, bgcolor=color(place))) for place, name in enumerate(specialists)]
    return Text(" ").join(parts)


def tokens_html(trace: TokenTrace, specialists: Sequence[str], *, marks: Sequence[bool | None] | None = None) -> str:
    """The answer as HTML spans, to stand in an element with ``white-space: pre-wrap``; weights are in each span's title.

    ``marks`` (T,) is the verdict of `routing.is_right` per token: False adds the class ``miss`` for a style sheet to show.
    """
    _require_names(trace, specialists)
    spans = []
    for place, (token, weights) in enumerate(zip(trace.tokens, trace.weights, strict=True)):
        if not token:
            continue  # a part of a character that the next token completes
        names = "t" + (" miss" if marks is not None and marks[place] is False else "") + (" end" if token == END_MARK else "")
        label = trace.labels and trace.label(place)
        title = weights_text(weights, specialists) + (f" · label {label}" if label else "")
        shown = html.escape(clean(token)).replace("\n", "<i>↵</i>\n")
        spans.append(
            f'<span class="{names}" style="background:{blend(weights)};color:{INK}" title="{html.escape(title)}">{shown}</span>'
        )
    return "".join(spans)


def width(text: str) -> int:
    """Columns that ``text`` takes in a monospaced face (wide characters take two)."""
    return cell_len(text)


def _require_names(trace: TokenTrace, specialists: Sequence[str]) -> None:
    if trace.weights.shape[1:] != (len(specialists),):
        raise ValueError(f"{len(specialists)} names for weights of shape {trace.weights.shape}")
