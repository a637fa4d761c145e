"""Tokens in the colours of the specialists that produced them (the paper's figures 8 and 9): terminal, HTML and SVG.

Every specialist has a colour and a token's background is their mix, weighted by the gate. The palette is colour-blind safe (light
shades in the hues of Okabe and Ito) and all its colours are bright. Mixing is done in linear light, where luminance is linear
too, so no mix is darker than the darkest of the palette: dark ink is legible on all of them, on light and dark pages alike.
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

# One per specialist: blue, orange, green, pink, yellow, vermilion, violet, grey.
PALETTE = ("#74b3f2", "#f5a742", "#4fc7a0", "#e39bc9", "#eee055", "#f07f5a", "#a99cf0", "#b5b9c0")
INK = "#10131a"


def color(place: int) -> str:
    """The colour of specialist ``place``, ``#rrggbb``; after eight they repeat."""
    return PALETTE[place % len(PALETTE)]


def blend(weights: Sequence[float] | Any) -> str:
    """The mix of the specialists' colours for one token: ``weights`` (N,), not negative, need not sum to 1; ``#rrggbb``."""
    own = np.asarray(weights, dtype=float)
    own = own / own.sum()
    return hex_color(own @ np.array([linear(color(place)) for place in range(len(own))]))


def hex_color(light: Any) -> str:
    """Linear-light red, green, blue in 0..1 as ``#rrggbb``; the inverse of `linear`."""
    coded = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return "#" + "".join(f"{round(float(channel) * 255):02x}" for channel in coded)


def linear(shade: str) -> Any:
    """``#rrggbb`` as linear-light red, green, blue in 0..1, float64 (3,) (the sRGB transfer function)."""
    coded = np.array([int(shade[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


def contrast(first: str, second: str) -> float:
    """WCAG contrast ratio of two colours, 1 to 21."""
    low, high = sorted(float(linear(shade) @ np.array([0.2126, 0.7152, 0.0722])) for shade in (first, second))
    return (high + 0.05) / (low + 0.05)


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


def clean(text: str) -> str:
    """Replace what neither a terminal nor XML can show (control characters, lone surrogates); tabs become four spaces."""
    return "".join(
        "    " if character == "\t" else character if character == "\n" or _printable(character) else "\ufffd"
        for character in text
    )


def width(text: str) -> int:
    """Columns that ``text`` takes in a monospaced face (wide characters take two)."""
    return cell_len(text)


def _printable(character: str) -> bool:
    point = ord(character)
    return point >= 32 and not 0x7F <= point < 0xA0 and not 0xD800 <= point < 0xE000 and point not in (0xFFFE, 0xFFFF)


def _require_names(trace: TokenTrace, specialists: Sequence[str]) -> None:
    if trace.weights.shape[1:] != (len(specialists),):
        raise ValueError(f"{len(specialists)} names for weights of shape {trace.weights.shape}")
