"""Writes what a run found: results.json, results.md, report.html and a picture of coloured tokens."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ultrafuser.analyse.charts import LossCurve
from ultrafuser.analyse.picture import tokens_svg
from ultrafuser.analyse.report import ReportData, write_report
from ultrafuser.analyse.routing import summarise
from ultrafuser.analyse.trace import TokenTrace, trace_answer, trace_conversations
from ultrafuser.data.conversations import Conversation
from ultrafuser.evaluate.table import ScoreTable
from ultrafuser.io import write_json, write_text
from ultrafuser.model.load import load
from ultrafuser.run.generate import positions
from ultrafuser.run.materials import Materials, by_domain, fitting_messages
from ultrafuser.schema import Evaluation, Recipe
from ultrafuser.tokens.pieces import read_pieces
from ultrafuser.train.result import HISTORY
from ultrafuser.train.trainer import METRICS_FILE

TRACED = 100  # held-out answers per domain that the gate's statistics are computed from, or more where more are shown


def write_results(folder: Path, materials: Materials, table: ScoreTable, recipe: Recipe, data: dict[str, Any]) -> None:
    """Write the run's results into ``folder``, each file whole or not at all; those that are there are replaced."""
    model, tokenizer = load(folder / "model", load_in=recipe.train.load_in)
    names = [one.name for one in recipe.specialists]
    count = max(TRACED, recipe.evaluation.samples_per_domain)
    chosen = _chosen(materials, count, tokenizer, min(recipe.data.max_length, positions(model)))
    conversations, labels = [one for one, _ in chosen], [own for _, own in chosen]
    traces = trace_conversations(model, tokenizer, conversations, labels=labels, batch_size=recipe.evaluation.batch_size)
    examples = list(_examples(model, tokenizer, conversations, recipe.evaluation))
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
    made = "\n".join(f"- {name}: {value}" for name, value in facts.items())
    write_text(folder / "results.md", "\n\n".join([f"# {recipe.name}", table.to_markdown(), *table.remarks(), made]) + "\n")
    write_json(folder / "results.json", data | {"facts": facts, "table": table.to_dict(), "routing": routing.to_dict()})


def _chosen(
    materials: Materials, per_domain: int, tokenizer: Any, max_length: int
) -> list[tuple[Conversation, list[str] | None]]:
    """The first ``per_domain`` held-out conversations of every domain, cut as they are judged, with their labels."""
    groups: dict[str, list[tuple[Conversation, list[str] | None]]] = {}
    pieces = read_pieces(tokenizer)
    for conversation, labels in zip(materials.heldout, materials.labels(), strict=True):
        group = groups.setdefault(conversation.domain, [])
        if len(group) < per_domain and (messages := fitting_messages(conversation, tokenizer, pieces, max_length)):
            group.append((replace(conversation, messages=messages), labels))
    return [one for group in groups.values() for one in group]


def _examples(model: Any, tokenizer: Any, conversations: Sequence[Conversation], evaluation: Evaluation) -> Iterator[TokenTrace]:
    """Answers of the fused model to a few of the prompts of every domain."""
    for domain, group in by_domain(conversations).items():
        for one in group[: evaluation.samples_per_domain]:
            yield trace_answer(model, tokenizer, one.messages[:-1], evaluation.max_new_tokens, domain=domain)


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
