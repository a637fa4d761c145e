"""A picture of coloured answers as one standalone SVG file: what README shows first.

Everything is placed on a monospaced grid. Each run of text states its width, so that boxes and letters agree whatever font the
reader has. The picture follows the reader's light or dark setting; it has no script and loads nothing.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

from rich.cells import chop_cells
from rich.console import Console
from rich.text import Text

from ultrafuser.analyse.colors import blend, weights_text, width
from ultrafuser.analyse.trace import TokenTrace
from ultrafuser.pages.palette import INK, clean, color

CELL, LINE, SIZE, MARGIN, PAD = 8.6, 25.0, 14.3, 26.0, 12.0  # px: column, line, font, outer margin, gap
STYLE = """
  .page { fill: #ffffff; stroke: #d9dde3 } .prompt { fill: #57606a } .name { fill: #1f2328; font-weight: 600 }
  .token { fill: INK } text { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace;
  font-size: SIZEpx; white-space: pre }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; stroke: #30363d } .prompt { fill: #9198a1 } .name { fill: #e6edf3 }
  }
""".replace("INK", INK).replace("SIZE", str(SIZE))


def tokens_svg(traces: TokenTrace | Sequence[TokenTrace], specialists: Sequence[str], *, columns: int = 88) -> str:
    """Draw one or several prompts with their coloured answers, and a legend; lines wrap at ``columns`` characters."""
    traces = [traces] if isinstance(traces, TokenTrace) else list(traces)
    parts = [_legend(specialists)]
    top = MARGIN + 2 * LINE
    for trace in traces:
        for line in _wrap(trace.prompt, columns - 2):
            parts.append(_text(0, top, line, "prompt"))
            top += LINE
        pieces = list(_place(trace, columns))
        parts += [_token(row, left, text, trace.weights[place], specialists, top) for row, left, text, place in pieces]
        top += (1 + max((row for row, *_ in pieces), default=0)) * LINE + PAD
    across, down = columns * CELL + 2 * MARGIN, top - PAD - LINE + 10 + MARGIN
    alt = f"Answers of a fused model, every token coloured by the specialists that produced it: {', '.join(specialists)}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{across:.0f}" height="{down:.0f}" '
        f'viewBox="0 0 {across:.0f} {down:.0f}" role="img" aria-label="{html.escape(alt)}">\n<style>{STYLE}</style>\n'
        f'<rect class="page" x="0.5" y="0.5" width="{across - 1:.0f}" height="{down - 1:.0f}" rx="10"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _place(trace: TokenTrace, columns: int) -> Iterator[tuple[int, int, str, int]]:
    """Lay the tokens out: row, column, text and token of every piece. A token that does not fit begins a new line."""
    row = left = 0
    for place, token in enumerate(trace.tokens):
        for number, part in enumerate(clean(token).split("\n")):
            if number:
                yield row, left, "↵", place
                row, left = row + 1, 0
            if left and left + width(part) > columns:
                row, left, part = row + 1, 0, part.lstrip(" ")
            for begun, piece in enumerate(chop_cells(part, columns)):  # a token longer than a line goes over several
                row, left = (row + 1, 0) if begun else (row, left)
                yield row, left, piece, place
                left += width(piece)


def _token(row: int, left: int, text: str, weights: Sequence[float], specialists: Sequence[str], top: float) -> str:
    x, y, across = MARGIN + left * CELL, top + row * LINE, width(text) * CELL - 0.8
    title = f"<title>{html.escape(weights_text(weights, specialists))}</title>"
    place = f'x="{x:.1f}" y="{y - 17:.1f}" width="{across:.1f}" height="{LINE - 3:.0f}"'
    ink = _text(left, y, text, "token") if text.strip() else ""
    return f'<g>{title}<rect {place} rx="3" fill="{blend(weights)}"/>{ink}</g>'


def _text(left: float, y: float, text: str, kind: str) -> str:
    # Leading spaces move the start instead: not every renderer keeps them.
    left, text = left + width(text) - width(text.lstrip(" ")), text.strip(" ")
    return (
        f'<text class="{kind}" x="{MARGIN + left * CELL:.1f}" y="{y:.1f}" textLength="{width(text) * CELL - 0.8:.1f}" '
        f'lengthAdjust="spacingAndGlyphs">{html.escape(text)}</text>'
    )


def _legend(specialists: Sequence[str]) -> str:
    parts, left = [], 0
    for place, name in enumerate(specialists):
        x = MARGIN + left * CELL
        parts.append(f'<rect x="{x:.1f}" y="{MARGIN - 9:.1f}" width="14" height="14" rx="3" fill="{color(place)}"/>')
        parts.append(_text(left + 2.5, MARGIN + 3, name, "name"))
        left += width(name) + 6
    return "\n".join(parts)


def _wrap(prompt: str, columns: int) -> list[str]:
    """The prompt's lines behind a ``› ``."""
    lines = [piece.plain for line in clean(prompt).split("\n") for piece in Text(line).wrap(Console(), columns) or [Text()]]
    return [("› " if number == 0 else "  ") + line for number, line in enumerate(lines)]
