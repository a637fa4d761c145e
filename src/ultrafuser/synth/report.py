"""`ultrafuser synth report`: one HTML file with topic tree, map of the instructions, lengths, drops, costs and decisions."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup
from rich.console import Console

from ultrafuser import pages
from ultrafuser.endpoints.store import AnswerStore
from ultrafuser.errors import UserError
from ultrafuser.facts import run_facts
from ultrafuser.io import new_file
from ultrafuser.pages.palette import clean
from ultrafuser.synth.findings import Findings, gather, histogram, median
from ultrafuser.synth.map import Embeddings, map_texts
from ultrafuser.synth.record import Item
from ultrafuser.synth.state import State
from ultrafuser.synth.statistics import WORDS, Measure, usd

TEMPLATES = Path(__file__).parent / "templates"
MAPPED = 4000  # instructions on the map
HOVER = 160  # characters of an instruction shown on the map


@dataclass(frozen=True)
class ReportOptions:
    """How a report is made.

    Args:
        measure: how lengths are counted.
        mapped: how many instructions the map shows; 0 leaves it out.
        embeddings: the model to arrange the map by; none: by the words of the instructions.
    """

    measure: Measure = WORDS
    mapped: int = MAPPED
    embeddings: Embeddings | None = None


def write_report(store: Path, out: Path | None = None, options: ReportOptions = ReportOptions()) -> Path:
    """Write the report of the synthesis in the file ``store``; it may still be running, or have stopped anywhere.

    ``out`` is the HTML file, if not ``report.html`` beside the store. Raises `UserError` if there is no synthesis in ``store``
    or the map cannot be made, and if ``out`` cannot be written.
    """
    out = out or store.parent / "report.html"
    waiting = Console(stderr=True).status("reading the synthesis and drawing the map of its instructions")
    with new_file(out, overwrite=True) as part, AnswerStore(store, read_only=True) as opened, waiting:
        part.write_text(render_report(opened, options), encoding="utf-8")
    return out


def render_report(store: AnswerStore, options: ReportOptions = ReportOptions()) -> str:
    """The report as HTML text; see `write_report`."""
    if not store.connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'topics'").fetchone():
        raise UserError(f"{store.path}: holds no synthesis yet; run 'ultrafuser synth RECIPE' first")
    state = State(store)
    findings = gather(state, sample=options.mapped, measure=options.measure)
    names = list(findings.statistics.domains)
    decisions = state.decisions().values()
    return pages.render(
        TEMPLATES,
        "synth_report.html",
        shown=len(names),
        title=store.path.absolute().parent.name,
        names=names,
        findings=findings,
        statistics=findings.statistics,
        map=Markup(map_json(findings.sample, names, options.embeddings)) if findings.sample else "",
        histograms={what: histogram(lengths) for what, lengths in findings.lengths.items()},
        medians={what: {name: median(own) for name, own in lengths.items()} for what, lengths in findings.lengths.items()},
        totals=store.totals(),
        spent=store.spent(),
        usd=usd,
        decided=Counter((decision.subject, decision.action) for decision in decisions),
        decisions=[decision for decision in decisions if decision.note],
        summary=_summary(findings),
        facts={name: value for name, value in run_facts(0).items() if name in ("command", "versions")}
        | {"store": store.path.name},
    )


def map_json(items: list[Item], names: list[str], embeddings: Embeddings | None) -> str:
    """The points of the map, as JSON that may stand in a script: place, domain, sub-topic and instruction."""
    places = map_texts([item.instruction for item in items], embeddings)
    points = [
        [round(float(x), 4), round(float(y), 4), names.index(item.domain), clean(item.sub_topic), _short(item.instruction)]
        for (x, y), item in zip(places, items, strict=True)
    ]
    return json.dumps(points, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _short(text: str) -> str:
    text = clean(" ".join(text.split()))
    return text if len(text) <= HOVER else f"{text[:HOVER]}…"


def _summary(findings: Findings) -> str:
    statistics = findings.statistics
    dropped, waiting = statistics.drops.total(), findings.pending.total()
    metas = sum(len(domain.meta_topics) for domain in statistics.domains.values())
    subs = sum(len(domain.sub_topics) for domain in statistics.domains.values())
    text = f"{statistics.total:,} conversations on {subs:,} sub-topics of {metas:,} meta-topics; {dropped:,} more were dropped"
    return f"{text}, {waiting:,} are not finished." if waiting else f"{text}."
