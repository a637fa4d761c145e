"""The colours of reports and terminals, and what can be shown at all.

The palette is colour-blind safe (light shades in the hues of Okabe and Ito) and all its colours are bright, so that dark ink is
legible on them, on light and dark pages alike.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# In order: blue, orange, green, pink, yellow, vermilion, violet, grey.
PALETTE = ("#74b3f2", "#f5a742", "#4fc7a0", "#e39bc9", "#eee055", "#f07f5a", "#a99cf0", "#b5b9c0")
INK = "#10131a"


def color(place: int) -> str:
    """The colour of number ``place``, ``#rrggbb``; after eight they repeat."""
    return PALETTE[place % len(PALETTE)]


def line_color(place: int) -> str:
    """The colour of number ``place`` darkened to a third of its light, enough for lines on white."""
    return hex_color(linear(color(place)) * 0.35)


def hex_color(light: Any) -> str:
    """Linear-light red, green, blue in 0..1 as ``#rrggbb``; the inverse of `linear`."""
    coded = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return "#" + "".join(f"{round(float(channel) * 255):02x}" for channel in coded)


def linear(shade: str) -> Any:
    """``#rrggbb`` as linear-light red, green, blue in 0..1, float64 (3,) (the sRGB transfer function)."""
    coded = np.array([int(shade[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)


def clean(text: str) -> str:
    """Replace what neither a terminal nor XML can show (control characters, lone surrogates); tabs become four spaces."""
    return "".join(
        "    " if character == "\t" else character if character == "\n" or _printable(character) else "\ufffd"
        for character in text
    )


def _printable(character: str) -> bool:
    point = ord(character)
    return point >= 32 and not 0x7F <= point < 0xA0 and not 0xD800 <= point < 0xE000 and point not in (0xFFFE, 0xFFFF)
