"""`ultrafuser check`: can these specialists be fused, and how well do they match?

A row per question: architecture, shapes, vocabulary, special tokens, chat templates, logit scale, disk and memory.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from ultrafuser.errors import plural
from ultrafuser.model.configuration_ultrafuser import head_dim
from ultrafuser.model.fuse import choose_dtype
from ultrafuser.model.layout import dropped_rows, fused_config, fused_tensors, gate_tensors
from ultrafuser.model.lineup import LineUp, line_up, resolve_templates
from ultrafuser.model.notes import pairs, shape, specialist_notes
from ultrafuser.model.report import CheckReport, CheckRow, Status, render
from ultrafuser.model.scale import PROBES, mean_entropy
from ultrafuser.model.sources import Specialist, names_for, open_specialist
from ultrafuser.model.tensors import AnyTensor, dtype_name, tensor_bytes
from ultrafuser.refused import called_plainly
from ultrafuser.tokens.pieces import TemplatePieces, read_pieces
from ultrafuser.tokens.verify import verify_pieces
from ultrafuser.tokens.vocabulary import agree

__all__ = ["CheckReport", "CheckRow", "check", "render"]

TRAINED_BYTES = 4 + 4 + 8  # of a parameter that AdamW trains: float32 weight and gradient, two float32 moments
UNLIKE_ENTROPY = 1.5  # ratio of mean entropies from which a specialist is said to be hotter than another


@called_plainly
def check(
    specialists: Sequence[str | Path],
    *,
    names: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    logit_scale: bool = True,
) -> CheckReport:
    """Look at everything `fuse` needs, without writing anything, and report all of it, not only the first problem.

    ``logit_scale`` runs each specialist on a few prompts, one in memory at a time; without it no weights are read.
    """
    report = CheckReport()
    known = report.attempt("files", lambda: names_for(specialists, names))
    if known is None:
        return report
    texts = report.attempt("chat templates", lambda: resolve_templates(templates, len(known))) or [None] * len(known)
    tried = [
        report.attempt("files", partial(open_specialist, str(one), name)) for one, name in zip(specialists, known, strict=True)
    ]
    opened = [(one, text) for one, text in zip(tried, texts, strict=True) if one is not None]
    _report_opened(report, [one for one, _ in opened], [text for _, text in opened], logit_scale)
    return report


def _report_opened(
    report: CheckReport, specialists: Sequence[Specialist], templates: Sequence[str | None], logit_scale: bool
) -> None:
    """Report on those specialists that could be opened."""
    _report_shapes(report, specialists)
    if len(specialists) > 1:
        report.attempt("vocabulary", lambda: _report_vocabulary(report, specialists))
    pieces = _report_templates(report, specialists, templates)
    lineup = report.attempt("chat templates", lambda: line_up(specialists, templates)) if report.ok else None
    if lineup is not None:
        _report_special_tokens(report, specialists, lineup)
        _report_size(report, specialists, lineup)
    if logit_scale:
        _report_logit_scale(report, [one for one in specialists if one.name in pieces], pieces)


def _report_shapes(report: CheckReport, specialists: Sequence[Specialist]) -> None:
    for one in specialists:
        count = _parameters(one.tensors.values())
        text = f"{one.name}: {one.config.model_type}, {count}, {shape(one)}, {dtype_name(one.dtype)}"
        report.add("architecture", "ok", text)
    if specialists:
        for note in specialist_notes(specialists, choose_dtype(specialists, None)):
            report.add("architecture", "note", note)


def _count(tensors: Iterable[AnyTensor]) -> int:
    return sum(math.prod(tensor.shape) for tensor in tensors)


def _parameters(tensors: Iterable[AnyTensor]) -> str:
    count = _count(tensors)
    return f"{count / 1e6:,.1f}M parameters" if count >= 1e6 else f"{count:,} parameters"


def _report_vocabulary(report: CheckReport, specialists: Sequence[Specialist]) -> None:
    agreement = agree({one.name: one.tokenizer for one in specialists}, {one.name: one.rows for one in specialists})
    shared = agreement.slot_start - len(agreement.masked_token_ids)
    report.add("vocabulary", "ok", f"{shared} ids mean the same token in all, compared string by string; base: {agreement.base}")
    for note in agreement.notes:
        report.add("vocabulary", "note", note)


def _report_templates(
    report: CheckReport, specialists: Sequence[Specialist], templates: Sequence[str | None]
) -> dict[str, TemplatePieces]:
    """Report what can be read of each template; the pieces of those that can."""
    found = {}
    for one, template in zip(specialists, templates, strict=True):
        pieces = report.attempt("chat templates", partial(read_pieces, one.tokenizer, chat_template=template, name=one.name))
        if pieces is None:
            continue
        found[one.name] = pieces
        text = one.tokenizer.decode([*pieces.first]), one.tokenizer.decode([*pieces.answer]), one.tokenizer.decode([pieces.end])
        report.add("chat templates", "ok", f"{one.name}: {text[0]!r} question {text[1]!r} answer {text[2]!r}")
        for note in (*pieces.notes, *verify_pieces(one.tokenizer, pieces, template, one.name)):
            report.add("chat templates", "note", note if one.name in note else f"{one.name}: {note}")
    return found


def _report_special_tokens(report: CheckReport, specialists: Sequence[Specialist], lineup: LineUp) -> None:
    for one in specialists:
        t = one.tokenizer
        report.add("special tokens", "ok", f"{one.name}: bos {t.bos_token!r}, eos {t.eos_token!r}, pad {t.pad_token!r}")
    plan, hidden = lineup.plan, sum(None in row for row in lineup.plan.slot_sources)
    end = lineup.tokenizer.convert_ids_to_tokens(plan.end_token_id)
    report.add("special tokens", "ok", f"fused: {plural(len(plan.slot_tokens), 'slot token')}, an answer ends with {end!r}")
    if hidden:
        count = plural(hidden, "slot")
        text = f"templates differ: {count} not seen by all; engines without attention masks need one template for all"
        report.add("special tokens", "note", text)
    for note in plan.notes:
        report.add("chat templates", "note", note)


def _report_size(report: CheckReport, specialists: Sequence[Specialist], lineup: LineUp) -> None:
    dtype = choose_dtype(specialists, None)
    config = fused_config(specialists, lineup.plan, gate_hidden_size=512, dtype=dtype)
    tensors = fused_tensors(specialists, lineup.plan, dtype) | gate_tensors(config, 0)
    dropped = [rows for one in specialists for rows in dropped_rows(one, lineup.plan.slot_start).values()]
    weights = sum(map(tensor_bytes, tensors.values()))
    disk, free = weights + sum(map(tensor_bytes, dropped)), shutil.disk_usage(".").free
    per_token = (
        sum(2 * c.num_hidden_layers * c.num_key_value_heads * head_dim(c) for c in config.specialist_configs()) * dtype.itemsize
    )
    status: Status = "ok" if disk < free else "note"
    report.add("disk", status, f"the fused model takes {_size(disk)}; {_size(free)} are free here")
    report.add(
        "memory",
        "ok",
        f"{_parameters(tensors.values())}: {_size(weights)} to load, and {_size(1000 * per_token)} per 1,000 cached tokens",
    )
    count = _count(tensors.values())
    gate, joint = f"{_size(2 * count)} in bfloat16, {_size(4 * count)} in float32", _size(TRAINED_BYTES * count)
    report.add("memory", "ok", f"training the gate: {gate}; training everything: {joint}; activations come on top")


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def _report_logit_scale(report: CheckReport, specialists: Sequence[Specialist], pieces: dict[str, TemplatePieces]) -> None:
    found = {one.name: report.attempt("logit scale", partial(mean_entropy, one, pieces[one.name])) for one in specialists}
    entropies = {name: entropy for name, entropy in found.items() if entropy is not None}
    if not entropies:
        return
    low, high = min(entropies, key=entropies.__getitem__), max(entropies, key=entropies.__getitem__)
    text = f"mean entropy of the next token on {len(PROBES)} answers: {pairs({n: f'{e:.2f}' for n, e in entropies.items()})} nats"
    if entropies[high] > UNLIKE_ENTROPY * entropies[low]:
        report.add("logit scale", "note", f"{text}; {low} is the surest and dominates the mix until the gate is trained")
    else:
        report.add("logit scale", "ok", text)
