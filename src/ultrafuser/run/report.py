"""Writes what a run found: results.json, results.md, report.html and a picture of coloured tokens."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ultrafuser.analyse.charts import LossCurve
from ultrafuser.analyse.picture import tokens_svg
from ultrafuser.analyse.report import ReportData, write_report
from ultrafuser.analyse.routing import summarise
from ultrafuser.analyse.trace import TokenTrace, trace_answer, trace_conversations
from ultrafuser.evaluate.table import ScoreTable
from ultrafuser.io import write_json, write_text
from ultrafuser.model.load import load
from ultrafuser.run.materials import Materials
from ultrafuser.schema import Recipe
from ultrafuser.train.result import HISTORY
from ultrafuser.train.trainer import METRICS_FILE

TRACED = 100  # held-out answers per domain that the gate's statistics are computed from


def write_results(folder: Path, materials: Materials, table: ScoreTable, recipe: Recipe, data: dict[str, Any]) -> None:
    """Write the run's results into ``folder``; results.json last, as it marks the run as finished."""
    model, tokenizer = load(folder / "model", load_in=recipe.train.load_in)
    names = [one.name for one in recipe.specialists]
    chosen = _chosen(materials, TRACED)
    labels = materials.labels()
    traces = trace_conversations(
        model,
        tokenizer,
        [materials.heldout[i] for i in chosen],
        labels=[labels[i] for i in chosen],
        batch_size=recipe.evaluation.batch_size,
    )
    examples = list(_examples(model, tokenizer, materials, recipe))
    routing = summarise(traces, names)
    facts = data["facts"] | {"duration": f"{sum(data['seconds'].values()) / 60:.1f} minutes"}
    report = ReportData(
        title=recipe.name,
        summary=recipe.description or f"{len(names)} specialists ({', '.join(names)}) fused into one model.",
        specialists=names,
        facts=facts,
        tables=[table.to_dict()] if table.scores else [],
        curves=list(loss_curves(folder / "model")),
        traces=traces,
        examples=examples,
    )
    write_report(folder / "report.html", report)
    write_text(folder / "tokens.svg", tokens_svg(_picture(examples), names))
    lines = [f"# {recipe.name}", table.to_markdown(), *(f"- {name}: {value}" for name, value in facts.items())]
    write_text(folder / "results.md", "\n\n".join(lines[:2]) + "\n\n" + "\n".join(lines[2:]) + "\n")
    write_json(folder / "results.json", data | {"facts": facts, "table": table.to_dict(), "routing": routing.to_dict()})


def _chosen(materials: Materials, per_domain: int) -> list[int]:
    """Places of the first ``per_domain`` held-out conversations of every domain."""
    places: dict[str, list[int]] = {}
    for place, conversation in enumerate(materials.heldout):
        places.setdefault(conversation.domain, []).append(place)
    return [place for group in places.values() for place in group[:per_domain]]


def _examples(model: Any, tokenizer: Any, materials: Materials, recipe: Recipe) -> Iterator[TokenTrace]:
    """Answers of the fused model to a few held-out prompts of every domain."""
    for place in _chosen(materials, recipe.evaluation.samples_per_domain):
        conversation = materials.heldout[place]
        yield trace_answer(
            model, tokenizer, conversation.messages[:-1], recipe.evaluation.max_new_tokens, domain=conversation.domain
        )


def _picture(examples: list[TokenTrace]) -> list[TokenTrace]:
    """The examples for the picture: those of the last domain, which in the generated world are the mixed ones."""
    return [trace for trace in examples if trace.domain == examples[-1].domain][:3]


def loss_curves(model: Path) -> Iterator[LossCurve]:
    """A curve per stage from a trained model's history."""
    lines = [json.loads(line) for line in (model / HISTORY / METRICS_FILE).read_text(encoding="utf-8").splitlines()]
    for stage in dict.fromkeys(line["stage"] for line in lines):
        rows = [line for line in lines if line["stage"] == stage and "loss" in line]
        domains = [key.removeprefix("loss/") for key in rows[0] if key.startswith("loss/")]
        losses = {domain: [row.get(f"loss/{domain}", math.nan) for row in rows] for domain in domains}
        yield LossCurve(stage, [row["step"] for row in rows], losses)
