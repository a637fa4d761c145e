"""The dataset card: README.md with the header that the Hugging Face hub reads, and the statistics of the paper's table 15."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import yaml

from ultrafuser.endpoints.store import Totals
from ultrafuser.synth.quality.rules import INSTRUCTION_RULES, RESPONSE_RULES
from ultrafuser.synth.statistics import DomainStatistics, Statistics, usd

if TYPE_CHECKING:
    from ultrafuser.synth.recipe import Check, SynthRecipe

SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M", 10_000_000: "1M<n<10M"}
CODES = {
    "English": "en", "Spanish": "es", "French": "fr", "German": "de", "Italian": "it", "Portuguese": "pt", "Dutch": "nl",
    "Indonesian": "id",
}  # fmt: skip
COMMON = 0.02  # share of the conversations from which a language is named in the header


def render_card(recipe: SynthRecipe, statistics: Statistics, totals: Mapping[str, Totals]) -> str:
    """The card as Markdown. ``totals`` are those of the store: requests, tokens and cost per step."""
    parts = [
        f"---\n{_header(recipe, statistics)}---",
        f"# {recipe.name}",
        *([recipe.description] if recipe.description else []),
        f"{statistics.total:,} conversations in {len(statistics.domains)} domains, written by language models along a tree of "
        "topics: meta-topics, sub-topics, instructions and others related to them, some of them rewritten to be more complex, "
        "and their responses. Made with UltraFuser (`ultrafuser synth`).",
        "`data.parquet` and `data.jsonl` hold the same records: `id`, `domain`, `messages`, and `provenance` with the topic "
        "path, and for every step the hash of its prompt, the model and its sampling.",
        f"## Statistics\n\n{_table_15(statistics)}\n\nLengths are means in {statistics.measure.unit}.",
        f"## What was dropped\n\n{_drops(statistics)}",
        f"## Cost\n\n{_costs(statistics, totals)}",
        f"## How it was checked\n\n{_checks(recipe)}",
        "## Limits\n\nNobody has read all of this. Models make mistakes and repeat what they were trained on; the models' own "
        "terms of use apply to what they wrote, and decide about the licence, which is left to fill in at the top of this file.",
    ]
    return "\n\n".join(parts) + "\n"


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first row its head; all columns but the first are set to the right."""
    head, *body = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---", *["---:"] * (len(head) - 1)], *body])


def _header(recipe: SynthRecipe, statistics: Statistics) -> str:
    size = next((name for limit, name in SIZES.items() if statistics.total < limit), "n>10M")
    seen = sum(statistics.languages.values())
    languages = [CODES[name] for name, count in statistics.languages.most_common() if name and count >= COMMON * seen]
    header = {
        "license": "other",
        "license_name": "to-be-filled-in",  # the authors' choice, within the terms of the models
        "language": languages or ["und"],
        "size_categories": [size],
        "task_categories": ["text-generation"],
        "tags": ["synthetic", "conversational", "ultrafuser", *statistics.domains],
        "pretty_name": recipe.name,
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data.parquet"}]}],
    }
    return yaml.safe_dump(header, sort_keys=False, allow_unicode=True)


def _table_15(statistics: Statistics) -> str:
    domains = statistics.domains
    lines = {
        "conversations": lambda one: f"{one.conversations:,}",
        "meta-topics / sub-topics": lambda one: f"{len(one.meta_topics):,} / {len(one.sub_topics):,}",
        "mean length": lambda one: f"{one.mean('whole'):.0f}",
        "of the instruction": lambda one: f"{one.mean('instruction'):.0f}",
        "of the responses": lambda one: f"{one.mean('response'):.0f}",
        "mean turns": lambda one: f"{one.mean('turns'):.2f}",
        "made more complex": lambda one: f"{one.mean('complicated'):.0%}",
        "seed / strongly / weakly related": _kinds,
    }
    return table([["", *domains], *([name, *map(show, domains.values())] for name, show in lines.items())])


def _kinds(one: DomainStatistics) -> str:
    return " / ".join(f"{one.kinds[kind]:,}" for kind in ("seed", "strong", "weak"))


def _drops(statistics: Statistics) -> str:
    if not statistics.drops:
        return "Nothing."
    domains = statistics.domains.values()
    rows = [[reason, *(f"{one.drops[reason]:,}" for one in domains)] for reason, _ in statistics.drops.most_common()]
    return table([["reason", *statistics.domains], *rows, ["all", *(f"{one.drops.total():,}" for one in domains)]])


def _costs(statistics: Statistics, totals: Mapping[str, Totals]) -> str:
    rows = [["step", "answers", "tokens in", "tokens out", "USD", "models"]]
    for step, sums in totals.items():
        models = ", ".join(sorted(statistics.models.get(step, ()))) or "–"
        counts = (sums.answers, sums.prompt_tokens, sums.completion_tokens)
        rows.append([step, *(f"{count:,}" for count in counts), usd(sums.cost), models])
    rows.append(["all", *_sums(totals, ("answers", "prompt_tokens", "completion_tokens"))])
    rows[-1] += [usd(sum(sums.cost for sums in totals.values())), ""]
    return table(rows)


def _sums(totals: Mapping[str, Totals], names: Sequence[str]) -> list[str]:
    return [f"{sum(getattr(sums, name) for sums in totals.values()):,}" for name in names]


def _checks(recipe: SynthRecipe) -> str:
    return "\n".join(f"- {line}" for line in _check_lines(recipe))


def _check_lines(recipe: SynthRecipe) -> Iterator[str]:
    yield f"duplicates: instructions with a Jaccard similarity of {recipe.duplicate_threshold:g} or more are dropped"
    for name, domain in recipe.domains.items():
        if domain.rules.names:
            yield f"dropped from {name}: {', '.join(_titles(domain.rules.names))}"
        if domain.check:
            yield f"checked {name}: {_how(domain.check)}"
    if recipe.score:
        yield f"score: a model's grade of at least {recipe.score.minimum} of 10"
    if recipe.decontaminate:
        sets = ", ".join(recipe.decontaminate.test_sets)
        yield f"test data: nothing shares a run of {recipe.decontaminate.n} words with {sets}"
    else:
        yield "test data: not compared with any benchmark"


def _titles(rules: Iterable[str]) -> list[str]:
    """What the rules drop, as the reasons of drops begin."""
    found = [table[name][0] for name in rules for table in (INSTRUCTION_RULES, RESPONSE_RULES) if name in table]
    return list(dict.fromkeys(found))


def _how(check: Check) -> str:
    if check.by == "programs":
        return "the Python in a response runs in a sandbox"
    answers = f"{check.samples + 1} answers: its own and {check.samples} further ones"
    return f"the final answer of a response is that of at least {check.share:.0%} of {answers}"
