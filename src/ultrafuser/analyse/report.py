"""The report of a run: one HTML file that needs nothing else, neither network nor other files.

It holds, in this order, the score tables, what the gate does (the paper's table 6 and figure 6), answers with every token in the
colours of the specialists that produced it (figures 8 and 9), the loss curves, and what is needed to make it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from ultrafuser import pages
from ultrafuser.analyse import charts, colors, routing
from ultrafuser.analyse.charts import LossCurve
from ultrafuser.analyse.trace import TokenTrace
from ultrafuser.io import write_text
from ultrafuser.pages.palette import clean

TEMPLATES = Path(__file__).parent / "templates"
HEAT_SAMPLES = 100  # samples per domain in the heat map


@dataclass(frozen=True)
class ReportData:
    """What a report shows; every part but the first three may be left out.

    Args:
        title: the page's title, such as ``miniworld``.
        summary: what was done and what came out, in a sentence or two.
        specialists: their names, in the order of the gate's weights.
        facts: how it was made: command, seed, machine, versions, commit, duration, ..
        tables: score tables as dictionaries (`ScoreTable.to_dict`); the first is the main one.
        curves: training losses, a curve per stage.
        traces: answers to compute the gate's statistics and the heat map from.
        examples: answers to show in colour.
        notes: remarks to put at the end.
    """

    title: str
    summary: str
    specialists: Sequence[str]
    facts: Mapping[str, str] = field(default_factory=dict)
    tables: Sequence[Mapping[str, Any]] = ()
    curves: Sequence[LossCurve] = ()
    traces: Sequence[TokenTrace] = ()
    examples: Sequence[TokenTrace] = ()
    notes: Sequence[str] = ()


def write_report(path: Path | str, data: ReportData) -> None:
    """Write ``data`` as one self-contained HTML file to ``path``, atomically."""
    write_text(path, render_report(data))


def render_report(data: ReportData) -> str:
    """The report as HTML text."""
    names = list(data.specialists)
    lines = _line_numbers(data)
    return render(
        "report.html",
        data=data,
        names=names,
        shown=max([len(names), *(place + 1 for place in lines.values())]),
        routing=routing.summarise(data.traces, names),
        heat=_heat_maps(data.traces, names),
        curves=[
            (curve, Markup(charts.loss_chart(curve, lines)), {name: lines[name] for name in curve.losses})
            for curve in data.curves
        ],
        answers=[(trace, answer_html(trace, names)) for trace in data.examples],
    )


def answer_html(trace: TokenTrace, specialists: Sequence[str]) -> Markup:
    """The coloured answer of ``trace``; tokens whose heaviest specialist is not the labelled one are marked."""
    return Markup(colors.tokens_html(trace, specialists, marks=routing.is_right(trace, specialists)))


def render(template: str, **values: Any) -> str:
    """Fill one of this package's templates; ``shown``, how many colours it uses, must be among ``values``."""
    return pages.render(TEMPLATES, template, sample_means=routing.sample_means, **values)


def _line_numbers(data: ReportData) -> dict[str, int]:
    """A colour number for every domain with a curve: its specialist's if it has one, else the next free."""
    numbers = {name: place for place, name in enumerate(data.specialists)}
    for curve in data.curves:
        for name in curve.losses:
            numbers.setdefault(name, len(numbers))
    return numbers


def _heat_maps(traces: Sequence[TokenTrace], specialists: Sequence[str]) -> list[tuple[str, int, int, Markup]]:
    """Domain, samples shown, samples in all and the map of each domain."""
    groups: dict[str, list[TokenTrace]] = {}
    for trace in traces:
        if len(trace.tokens):
            groups.setdefault(trace.domain, []).append(trace)
    maps = []
    for domain, group in groups.items():
        means = [routing.sample_means(trace) for trace in group[:HEAT_SAMPLES]]
        titles = [
            f"{colors.weights_text(mean, specialists)}\n{clean(trace.prompt)[:120]}"
            for mean, trace in zip(means, group, strict=False)
        ]
        maps.append((domain, len(means), len(group), Markup(charts.heat_map(means, titles))))
    return maps
