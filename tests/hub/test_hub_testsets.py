"""The benchmarks' data over HTTP, from repositories laid out as the real ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmark_repositories import GSM8K, card, files, repositories

from benchmark_rows import HUB_ROWS, write_test_data
from fake_hub import FakeHub, Trouble
from ultrafuser.errors import UserError
from ultrafuser.testsets import TEST_SETS, load_test_set, loaded_once
from ultrafuser.testsets_hub import HUB


@pytest.fixture(scope="module")
def real() -> dict[str, dict[str, bytes]]:
    return repositories()


@pytest.mark.parametrize("name", TEST_SETS)
def test_benchmark_from_the_hub_is_the_local_one(
    name: str, real: dict[str, dict[str, bytes]], hub: FakeHub, offline: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Catches a configuration, split, column or type other than the hub's, a needed script, and data not to be had offline."""
    (repository,) = {part.get("given") or part["repo_id"] for part in HUB[name].parts}
    hub.push(repository, real[repository], kind="dataset")
    local = load_test_set(name, write_test_data(tmp_path / "data"))
    assert load_test_set(name) == local
    assert all(set(TEST_SETS[name].fields) <= set(record) for record in local)
    assert not [file for file in hub.downloaded(repository) if file.endswith(".py")]
    before = len(hub.log)
    with offline():
        assert load_test_set(name) == local
    assert len(hub.log) == before


def test_loaded_once_asks_the_hub_once(real: dict[str, dict[str, bytes]], hub: FakeHub) -> None:
    """Catches a hub that is asked again for every model and task of an evaluation."""
    hub.push("openai/gsm8k", real["openai/gsm8k"], kind="dataset")
    with loaded_once():
        first = load_test_set("gsm8k")
        before = len(hub.log)
        assert load_test_set("gsm8k") == first and len(hub.log) == before
    assert load_test_set("gsm8k") == first and len(hub.log) > before


def test_bad_benchmarks_are_one_line(hub: FakeHub) -> None:
    """Catches a traceback, or a message that does not say what is wrong with a repository that changed."""
    renamed = {"query": GSM8K["question"], "answer": GSM8K["answer"]}
    main = {"README.md": card({"main": ["test"]})}
    bad = {
        r"Dataset scripts are no longer supported, but found gsm8k\.py": {"README.md": b"", "gsm8k.py": b"import datasets\n"},
        r"its rows are not as they were \(no field 'question'\)": main | files("main", renamed, HUB_ROWS["gsm8k"][0]),
        r'Unknown split "test"\. Should be one of \[\'train\'\]': {
            "README.md": card({"main": ["train"]}),
            **files("main", GSM8K, HUB_ROWS["gsm8k"][0], "train"),
        },
        r"BuilderConfig 'main' not found": {
            "README.md": card({"other": ["test"]}),
            **files("other", GSM8K, HUB_ROWS["gsm8k"][0]),
        },
    }
    for message, content in bad.items():
        hub.push("openai/gsm8k", content, kind="dataset")
        with pytest.raises(UserError, match=rf"^gsm8k: cannot be loaded from the hub \(openai/gsm8k: {message}") as caught:
            load_test_set("gsm8k")
        assert "\n" not in str(caught.value) and str(caught.value).endswith("; give a local directory of test data")


def test_benchmark_out_of_reach_is_one_line(hub: FakeHub, no_waiting: list[float]) -> None:
    """Catches an error of the client's that says neither what is the matter nor what to do."""
    repository, file = "tatsu-lab/alpaca_eval", "alpaca_eval.json"
    reasons = {
        "missing": "no such repository, or it is private: log in with 'hf auth login'",
        "gated": "it is gated: ask for access",
    }
    for state, reason in reasons.items():
        if state == "gated":
            hub.push(repository, {file: b"[]"}, kind="dataset", gated=True)
        with pytest.raises(UserError, match=rf"alpaca_eval: .* \({repository}: .*{reason}"):
            load_test_set("alpaca_eval")
    hub.troubles.append(Trouble("*", status=503))
    with pytest.raises(UserError, match=rf"\({repository}: the hub answers 503; try again later\)"):
        load_test_set("alpaca_eval")
    assert no_waiting  # the client did try again
