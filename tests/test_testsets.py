"""Test data: local files and the user's mistakes; tests/hub/ has what comes from the hub."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmark_rows import RECORDS, write_test_data
from ultrafuser import testsets
from ultrafuser.boxed import last_boxed
from ultrafuser.errors import UserError
from ultrafuser.testsets import TEST_SETS, load_test_set
from ultrafuser.testsets_hub import HUB, derive_instruction

REAL_DATA = os.environ.get("ULTRAFUSER_TEST_DATA")


def test_hub_sources_are_those_of_lm_eval() -> None:
    """Catches a data set or split other than the harness's, whose scores would not be about the same questions."""
    yaml_loader = pytest.importorskip("lm_eval.tasks._yaml_loader")
    folder = Path(yaml_loader.__file__).parent
    stock = {
        "gsm8k": "gsm8k/gsm8k.yaml",
        "math": "hendrycks_math/hendrycks_math_algebra.yaml",
        "sat_math": "agieval/sat-math.yaml",
        "aqua": "agieval/aqua-rat.yaml",
        "humaneval": "humaneval/humaneval.yaml",
        "mbpp": "mbpp/mbpp.yaml",
        "truthfulqa": "truthfulqa/truthfulqa_mc2.yaml",
    }
    for name, file in stock.items():
        config = yaml_loader.load_yaml(folder / file, resolve_func=False)
        theirs = (config["dataset_path"], config.get("dataset_name"), config["test_split"] or config["validation_split"])
        first = HUB[name].parts[0]
        assert (first["given"], first["name"], first["split"]) == theirs


def test_local_files_in_all_their_places(tmp_path: Path) -> None:
    """Catches a layout that is documented but not found: with and without ``eval/``, gzipped and plain."""
    data = write_test_data(tmp_path / "data")
    assert load_test_set("gsm8k", data) == RECORDS["gsm8k"]
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "gsm8k_test.jsonl").write_bytes(gzip.decompress((data / "eval" / "gsm8k_test.jsonl.gz").read_bytes()) + b"\n")
    assert load_test_set("gsm8k", str(plain)) == RECORDS["gsm8k"]


def test_loaded_once_where_it_is_asked_for(tmp_path: Path) -> None:
    """Catches data loaded for each model and task anew, and data of another directory or of an earlier time in their place."""
    data, other = write_test_data(tmp_path / "data"), write_test_data(tmp_path / "other")
    (file,), (changed,) = ([path for path in (one / "eval").iterdir() if "gsm8k" in path.name] for one in (data, other))
    changed.write_bytes(gzip.compress(json.dumps({**RECORDS["gsm8k"][0], "id": "another"}).encode()))
    with testsets.loaded_once():
        first = load_test_set("gsm8k", data)
        first.clear()  # what one does to its list is its own affair
        file.unlink()
        assert load_test_set("gsm8k", str(data)) == RECORDS["gsm8k"]
        assert [record["id"] for record in load_test_set("gsm8k", other)] == ["another"]
    with testsets.loaded_once(), pytest.raises(UserError, match="no such file"):
        load_test_set("gsm8k", data)
    with pytest.raises(UserError, match="no such file"):
        load_test_set("gsm8k", data)


def test_mistakes_are_one_line_that_names_the_file(tmp_path: Path) -> None:
    """Catches a traceback, or a message that does not say which file was looked for or which line is bad."""
    with pytest.raises(UserError, match="did you mean 'gsm8k'"):
        load_test_set("gsm8")
    for place in (tmp_path / "none", "~nosuchuser/none", "x" * 300):
        with pytest.raises(UserError, match=f"^{place}: no such directory"):
            load_test_set("gsm8k", place)
    with pytest.raises(UserError, match=r"eval/math500\.jsonl\.gz: no such file"):
        load_test_set("math", tmp_path)
    file = tmp_path / "math500.jsonl"
    for line, complaint in {
        "{": "line 2: not valid JSON",
        "[" * 100_000: "line 2: not valid JSON .nested too deeply",
        '{"id": ' + "1" * 5000 + "}": "line 2: not valid JSON .a number has too many digits",
        '{"id": "x", "prompt": "p"}': "line 2: the field 'response' is missing",
    }.items():
        file.write_text(json.dumps(RECORDS["math"][0]) + "\n" + line + "\n")
        with pytest.raises(UserError, match=complaint) as caught:
            load_test_set("math", tmp_path)
        assert "\n" not in str(caught.value)
    (tmp_path / "gsm8k_test.jsonl.gz").write_bytes(gzip.compress(b"{}" * 99)[:-9])
    with pytest.raises(UserError, match="is the file complete"):
        load_test_set("gsm8k", tmp_path)


def test_texts_for_contamination_checks(tmp_path: Path) -> None:
    """Catches a prompt, second turn or long answer that decontamination would never see."""
    data = write_test_data(tmp_path / "data")
    texts = {name: list(testsets.test_texts(name, data)) for name in TEST_SETS}
    assert texts["mt_bench"][1] == ("mt_bench mt_bench-81", "And back.")
    assert [text for _, text in texts["truthfulqa"]] == ["Is the moon cheese?", "It is rock.", "It is stone.", "It is cheese."]
    assert [text for _, text in texts["gsm8k"]][1] == RECORDS["gsm8k"][0]["response"]
    for name, records in RECORDS.items():
        assert records[0]["prompt"] in [text for _, text in texts[name]]


def test_last_boxed_by_counting_braces() -> None:
    """Catches nested and escaped braces, a box that is never closed, and the box without braces."""
    cases = {
        r"\boxed{1} then \boxed{\frac{1}{2}}.": r"\frac{1}{2}",
        r"\boxed{\{1,2\}}": r"\{1,2\}",
        r"\fbox{7}": "7",
        r"is $\boxed 5$ then": "5",
        r"\boxed{3} and \boxed{4": "3",
        r"\boxed{}": None,
        r"\boxed{3} then \boxed{}": "3",
        r"\boxedx{3}": None,
        "none": None,
    }
    assert {text: last_boxed(text) for text in cases} == cases


def test_last_boxed_takes_a_babbling_answer() -> None:
    """Reading it from every box anew took 10 s for 30 kB, and a model may repeat itself for longer."""
    assert last_boxed(r"\boxed{" * 200_000) is None
    assert last_boxed(r"\boxed{" * 200_000 + "7}") == "7"


def test_instructions_of_one_reference_only_are_told(caplog: pytest.LogCaptureFixture) -> None:
    """A score over fewer instructions than AlpacaEval has must not pass for one over all."""
    older = [{"instruction": text, "output": "a"} for text in ("one", "two", "old")]
    newer = [{"instruction": text, "output": "b", "dataset": "d"} for text in ("two", "new", "newer", "one")]
    assert [record["prompt"] for record in HUB["alpaca_eval"].convert([older, newer])] == ["two", "one"]
    (line,) = caplog.messages
    assert line.startswith("note: alpaca_eval: 3 of 5 instructions are left out")
    caplog.clear()
    HUB["alpaca_eval"].convert([older[:2], [newer[0], newer[3]]])
    assert not caplog.messages


def test_an_empty_benchmark_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """No records at all must be one line that names the place, and no division by zero at the end of a run."""
    monkeypatch.setattr(testsets, "_hub_rows", lambda part: [])
    with pytest.raises(UserError, match=r"^gsm8k: cannot be loaded from the hub \(openai/gsm8k: it holds no record\)"):
        load_test_set("gsm8k")


def test_no_torch_and_no_harness_needed() -> None:
    """Catches an import that would make decontamination and synthesis need torch or lm-evaluation-harness."""
    code = (
        "import sys; sys.argv=['ultrafuser']; import ultrafuser.testsets, ultrafuser.evaluate.catalogue;"
        "assert not {'torch', 'lm_eval', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(not REAL_DATA, reason="ULTRAFUSER_TEST_DATA names no directory of real test data")
def test_instructions_derived_from_humaneval_are_the_local_ones() -> None:
    """Catches a derivation that asks other questions when the data come from the hub than when they are local."""
    with gzip.open(Path(str(REAL_DATA)) / "eval" / "humaneval.jsonl.gz", "rt", encoding="utf-8") as file:
        originals = [json.loads(line) for line in file]
    for original, record in zip(originals, load_test_set("humaneval", REAL_DATA), strict=True):
        derived = derive_instruction(original["prompt"], original["entry_point"])
        assert derived == {field: record[field] for field in derived}
