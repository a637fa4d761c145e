"""The data files against the items they come from, and against the readers of training data; the card against its figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import yaml
from synth_world import Writer, make_recipe, run, tables
from tokenizers import Tokenizer, models, pre_tokenizers

from fake_endpoint import FakeEndpoint
from ultrafuser.data.conversations import read_conversations
from ultrafuser.decontaminate import sidecar, was_checked
from ultrafuser.endpoints.store import AnswerStore, Totals
from ultrafuser.errors import UserError
from ultrafuser.synth.card import render_card, table
from ultrafuser.synth.export import export, to_record
from ultrafuser.synth.publish import publish
from ultrafuser.synth.record import Item
from ultrafuser.synth.run import run_synth
from ultrafuser.synth.statistics import Statistics, tokens_of


def item(id: str = "code/000/001/0000", **changes: Any) -> Item:
    origin = {"key": "k", "prompt": "p1", "model": "m", "endpoint": "http://one", "sampling": {"temperature": 0.7, "seed": 3}}
    made = Item(
        id=id, domain=id.partition("/")[0], meta_topic="Algorithms", sub_topic="Search", kind="seed", status="accepted",
        instruction="Find it, fast.", original="Find it.", response="So:\n\n```\nx\n```", traits={"language": "C"},
        provenance={"instructions": origin, "responses": origin, "ended": "cut off", "review": {"action": "accept"}},
        further=[{"role": "user", "content": "And  then?"}, {"role": "assistant", "content": "Grüße \u2028 🙂"}],
    )  # fmt: skip
    return replace(made, **changes)


def test_a_record_holds_what_it_should() -> None:
    """Catches a lost turn or trait, an endpoint that got in, and sampling under the wrong step."""
    record = to_record(item())
    assert record["messages"] == item().turns and (record["id"], record["domain"]) == ("code/000/001/0000", "code")
    provenance = record["provenance"]
    assert provenance["topic"] == ["code", "Algorithms", "Search"] and provenance["original"] == "Find it."
    assert provenance["traits"] == ["language: C"] and (provenance["kind"], provenance["reviewed"]) == ("seed", "accept")
    assert [step["step"] for step in provenance["steps"]] == ["instructions", "responses"]
    assert provenance["steps"][0] == {
        "step": "instructions", "prompt": "p1", "model": "m", "temperature": 0.7, "top_p": None, "max_tokens": None, "seed": 3,
        "attempt": None,
    }  # fmt: skip
    assert "http" not in json.dumps(record)


def test_both_files_hold_the_same(tmp_path: Path) -> None:
    """Catches rows lost at the border of a row group, an order that changed, and fields that one of the formats cannot hold."""
    items = [item(f"code/000/{n // 100:03d}/{n % 100:04d}", original=None if n % 2 else "o", traits={}) for n in range(5000)]
    lines, columns = export(iter(items), tmp_path)
    expected = [to_record(one) for one in items]
    assert [json.loads(line) for line in lines.read_bytes().splitlines()] == expected
    assert pyarrow.parquet.read_table(columns).to_pylist() == expected
    assert lines.read_bytes().count(b"\n") == 5000  # a line separator in a text does not make a line


def test_training_reads_what_was_written(tmp_path: Path) -> None:
    """Catches a format that `ultrafuser train` refuses."""
    recipe = make_recipe(tmp_path / "out")
    items = [one for one in run(recipe) if one.status == "accepted"]
    with AnswerStore(recipe.store) as store:
        lines, columns, card = publish(recipe, store)
    for file in (lines, columns):
        read = read_conversations(file, domains=["text", "code", "math"])
        assert [(one.domain, one.messages) for one in read] == [(one.domain, one.turns) for one in items]
    assert "| conversations | 20 | 20 | 20 |" in card.read_text() and not was_checked(lines)


def test_publishing_again_is_the_same(tmp_path: Path) -> None:
    """Catches output that depends on anything but the store: both files byte for byte."""
    recipe = make_recipe(tmp_path / "out")
    run(recipe)
    with AnswerStore(recipe.store) as store:
        before = [file.read_bytes() for file in publish(recipe, store)]
        assert [file.read_bytes() for file in publish(recipe, store)] == before


def test_nothing_half_written(tmp_path: Path) -> None:
    """Catches earlier data lost, or a part left behind, when an export fails midway."""
    export([item()], tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def broken() -> Any:
        yield item()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        export(broken(), tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_checked_data_says_so(tmp_path: Path) -> None:
    """Catches a warning at training time about data that the synthesis itself has compared with the benchmarks."""
    recipe = make_recipe(tmp_path / "out")
    run(recipe)
    tests = tmp_path / "gsm8k.jsonl"
    tests.write_text("")
    checked = make_recipe(tmp_path / "out", decontaminate={"test_sets": ["gsm8k"], "data_dir": str(tmp_path)})
    with AnswerStore(recipe.store) as store:
        lines, columns, card = publish(checked, store)
    assert was_checked(lines) and was_checked(columns) and json.loads(sidecar(lines).read_text())["test_sets"] == ["gsm8k"]
    assert "nothing shares a run of 13 words with gsm8k" in card.read_text()


def test_statistics_by_hand() -> None:
    """Table 15's figures of three conversations and two drops, counted by hand."""
    statistics = Statistics.of(["code", "math"])
    for one in (
        item(),
        item("code/000/002/0000", further=[], original=None, kind="weak"),
        item("code/001/000/0000", further=[], response="a b c"),
        item("code/001/000/0001", status="dropped", reason="refusal: no"),
        item("code/001/000/0002", status="dropped", reason="refusal: never"),
        item("code/001/000/0003", status="pending"),
    ):
        statistics.add(one)
    code, math = statistics.domains.values()
    assert (code.conversations, len(code.meta_topics), len(code.sub_topics)) == (3, 2, 3)
    assert code.instruction == 3 * 3 and code.response == (4 + 2) + 4 + 3 and code.whole == 9 + 13 + 2
    assert (code.turns, code.complicated, code.mean("turns")) == (4, 2, 4 / 3)
    assert dict(code.kinds) == {"seed": 2, "weak": 1} and dict(statistics.drops) == {"refusal": 2}
    assert (math.conversations, math.mean("whole"), statistics.total) == (0, 0, 3)
    assert statistics.models == {"instructions": {"m"}, "responses": {"m"}}


def test_card(tmp_path: Path) -> None:
    """Catches a header that the hub cannot read, a table that Markdown cannot, and figures in the wrong place."""
    recipe = make_recipe(tmp_path / "out", description="A | test.")
    statistics = Statistics.of(recipe.domains)
    statistics.add(item())
    statistics.add(item("math/000/000/0000", status="dropped", reason="no final answer: nothing"))
    card = render_card(recipe, statistics, {"responses": Totals(3, 2, 1000, 2000, 1.5)})
    header = yaml.safe_load(card.split("---")[1])
    assert (header["size_categories"], header["license"], header["language"]) == (["n<1K"], "other", ["und"])
    assert header["configs"][0]["data_files"] == [{"split": "train", "path": "data.parquet"}]
    for line in (
        "|  | text | code | math |",
        "| conversations | 0 | 1 | 0 |",
        "| meta-topics / sub-topics | 0 / 0 | 1 / 1 | 0 / 0 |",
        "| mean length | 0 | 11 | 0 |",
        "| no final answer | 0 | 0 | 1 |",
        "| responses | 2 | 1,000 | 2,000 | 1.50 | m |",
        "| all | 2 | 1,000 | 2,000 | 1.50 |  |",
        "Lengths are means in words.",
    ):
        assert line in card, line
    assert table([["a|b", "c"], ["d\ne", "f"]]) == "| a\\|b | c |\n| --- | ---: |\n| d e | f |"


def test_card_says_how_it_was_checked(tmp_path: Path) -> None:
    """Catches names of rules that nobody outside knows, and a count of answers without the response itself."""
    plain = {"description": "All else.", "meta_topics": 1, "sub_topics": 1, "instructions": 1}
    checked = {**plain, "check": {"by": "agreement", "samples": 4, "share": 0.6}, "rules": {"names": ["refusal", "ai_self"]}}
    recipe = make_recipe(tmp_path / "out", domains={"one": checked, "two": {**plain, "rules": {"names": []}}})
    card = render_card(recipe, Statistics.of(recipe.domains), {"responses": Totals(1, 1, 1, 1, 0.0)})
    assert "- dropped from one: refusal, speaks of itself as an AI\n" in card and "dropped from two" not in card
    assert "that of at least 60% of 5 answers: its own and 4 further ones" in card
    assert "| responses | 1 | 1 | 1 | – | – |" in card  # no price, no cost


def test_card_names_the_models_of_topics(tmp_path: Path) -> None:
    """Catches steps without a model in the table of costs: topics have theirs too."""
    with FakeEndpoint(Writer()) as server:
        *_, file = run_synth(make_recipe(tmp_path / "out", server.base_url)).data
    card = file.read_text(encoding="utf-8")
    rows = [line for line in card.splitlines() if line.startswith(("| meta_topics |", "| sub_topics |"))]
    assert len(rows) == 2 and all(row.endswith("| fake-0001 |") for row in rows)


def test_lengths_in_tokens(tmp_path: Path) -> None:
    """Catches special tokens counted, and a traceback for a tokenizer that does not exist."""
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "?": 2}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    measure = tokens_of(str(tmp_path))
    assert measure.count("abba") == 4 and measure.unit == f"tokens of {tmp_path}"
    with pytest.raises(UserError, match="no tokenizer could be loaded"):
        tokens_of(str(tmp_path / "tokenizer.jsonx"))


def test_a_whole_run_loses_nothing(tmp_path: Path) -> None:
    """Catches items that are in neither the data nor the drops of the card."""
    recipe = make_recipe(tmp_path / "out")
    run(recipe)
    rows = tables(recipe)["items"]
    with AnswerStore(recipe.store) as store:
        publish(recipe, store)
    dropped = sum(row["status"] == "dropped" for row in rows)
    lines = (tmp_path / "out" / "data.jsonl").read_bytes().splitlines()
    card = (tmp_path / "out" / "README.md").read_text().split("## What was dropped")[1].split("## Cost")[0]
    assert len(lines) + dropped == len(rows)
    sums = next(line for line in card.splitlines() if line.startswith("| all "))
    assert sum(map(int, sums.split("|")[2:5])) == dropped
