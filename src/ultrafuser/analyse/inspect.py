"""`ultrafuser inspect`: let a fused model answer one prompt and show which specialist produced which token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from ultrafuser.analyse.colors import legend_rich, tokens_rich, weights_text
from ultrafuser.analyse.report import answer_html, render
from ultrafuser.analyse.routing import entropy, sample_means
from ultrafuser.analyse.trace import END_MARK, TokenTrace, trace_answer
from ultrafuser.errors import UserError, plural
from ultrafuser.io import write_text


def inspect_prompt(
    model: Any,
    tokenizer: Any,
    messages: Sequence[Mapping[str, str]],
    *,
    max_new_tokens: int = 256,
    html: Path | str | None = None,
    console: Console | None = None,
) -> TokenTrace:
    """Answer ``messages`` (greedy) and show the coloured answer on the terminal, or in the file ``html``; return its trace.

    Raises `UserError` if the model is not a fused one, or has no room for an answer.
    """
    specialists = specialist_names(model)
    trace = trace_answer(model, tokenizer, messages, max_new_tokens)
    limit = "--max-new-tokens" if len(trace.tokens) == max_new_tokens else "the model's positions"
    cut_off = "" if not trace.tokens or trace.tokens[-1] == END_MARK else limit
    if html is not None:
        write_text(html, inspect_html(trace, specialists, cut_off=cut_off))
    else:
        show_trace(trace, specialists, console or Console(), cut_off=cut_off)
    return trace


def specialist_names(model: Any) -> list[str]:
    """The names of a fused model's specialists. Raises `UserError` for a plain model."""
    names = getattr(model.config, "specialist_names", None)
    if not names:
        raise UserError(
            f"{model.config.name_or_path or 'this model'}: has no specialists to show; give a model made by 'ultrafuser fuse'"
        )
    return list(names)


def show_trace(trace: TokenTrace, specialists: Sequence[str], console: Console, *, cut_off: str = "") -> None:
    """Print the legend, the coloured answer and its mean weights; ``cut_off``: what the answer was too long for, if anything."""
    console.print(legend_rich(specialists), end="\n\n")
    console.print(tokens_rich(trace, specialists), soft_wrap=False, end="\n\n")
    console.print(Text(_summary(trace, specialists, cut_off), "dim"))


def inspect_html(trace: TokenTrace, specialists: Sequence[str], *, cut_off: str = "") -> str:
    """The same as one self-contained HTML page."""
    summary = _summary(trace, specialists, cut_off)
    names = list(specialists)
    answer = answer_html(trace, specialists)
    return render("inspect.html", shown=len(names), trace=trace, names=names, answer=answer, summary=summary)


def _summary(trace: TokenTrace, specialists: Sequence[str], cut_off: str) -> str:
    if not trace.tokens:
        return "the answer is empty"
    mean = weights_text(sample_means(trace), specialists)
    length = plural(len(trace.tokens), "token") + (f", cut off there ({cut_off})" if cut_off else "")
    return f"{length} · mean weights: {mean} · gate entropy {entropy(trace.weights).mean():.2f} nats"
