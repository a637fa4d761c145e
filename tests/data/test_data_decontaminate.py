"""`ultrafuser decontaminate` on files: what stays is as it was, what goes is explained, mistakes leave nothing behind."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from typer.testing import CliRunner

from ultrafuser.cli import app
from ultrafuser.data.decontaminate_files import decontaminate_files
from ultrafuser.decontaminate import sidecar, was_checked
from ultrafuser.run.materials import gather
from ultrafuser.schema import Recipe

QUESTION = "A baker sells 12 loaves a day for 3 coins each; how many coins does he take in a week?"
ANSWER = "He sells 12 loaves at 3 coins, which is 36 coins a day, so 36 times 7 = 252 coins a week."
MYTH = "Does an apple a day keep the doctor away?"  # nine words: one gram as a whole
RANDOM = random.Random(0)


def words(count: int) -> str:
    return " ".join(RANDOM.choices(["apple", "stone", "river", "cloud", "green", "seven", "walks", "under"], k=count))


def chat(*contents: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]
    return {"domain": "math", "messages": messages, **more}


TRAIN = [
    chat("hello", "hi", note="ü", score=0.1),
    chat(words(20), "a clean one", note=None, score=2.5),
    chat("Solve: " + QUESTION.upper(), "252", note="question", score=1.0),
    chat(words(5), "so", "and then?", f"{words(3)} {ANSWER} {words(3)}", note="answer in the second turn", score=0.0),
    chat("Tell me. " + MYTH, f"No. {QUESTION}", note="two test sets", score=-1.0),
    chat("does an apple a day keep", "the doctor away", note="split between messages", score=1e-9),
]
KEPT = [TRAIN[0], TRAIN[1], TRAIN[5]]


@pytest.fixture(scope="module")
def tests_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tests")
    write(folder / "gsm8k_test.jsonl", [{"id": "g-0", "prompt": QUESTION, "response": ANSWER, "answer": "252"}])
    myth = {"id": "t-0", "prompt": MYTH, "mc2_choices": ["No.", "Yes, it does."], "mc2_labels": [1, 0]}
    write(folder / "truthfulqa.jsonl", [myth])
    return folder


def write(path: Path, records: list[Any]) -> Path:
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
    else:
        text = "".join(json.dumps(record, ensure_ascii=number % 2 == 0) + "\n" for number, record in enumerate(records))
        path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def read(path: Path) -> list[Any]:
    if path.suffix == ".parquet":
        return list(pyarrow.parquet.read_table(path).to_pylist())
    raw = path.read_bytes()
    return [json.loads(line) for line in (gzip.decompress(raw) if path.suffix == ".gz" else raw).splitlines()]


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet"])
def test_what_stays_and_what_goes(kind: str, tmp_path: Path, tests_dir: Path) -> None:
    """Catches an overlap missed in a prompt, an answer or a later turn, a clean example dropped, changed or moved, and counts."""
    source, out = write(tmp_path / f"train.{kind}", TRAIN), tmp_path / f"clean.{kind}"
    cleaned = decontaminate_files([str(source)], out, against=["gsm8k", "truthfulqa"], data_dir=tests_dir)
    assert read(out) == KEPT
    assert (cleaned.examples, cleaned.dropped) == (6, 3)
    assert {name: (one.texts, one.too_short, one.dropped) for name, one in cleaned.test_sets.items()} == {
        "gsm8k": (2, 0, 3),
        "truthfulqa": (3, 2, 1),
    }
    place = "row" if kind == "parquet" else "line"
    told = [(one["where"].removeprefix(f"{source} "), one["test_set"], one["test_text"]) for one in read(cleaned.report)]
    assert told == [
        (f"{place} 3", "gsm8k", "gsm8k g-0"),
        (f"{place} 4", "gsm8k", "gsm8k g-0"),
        (f"{place} 5", "truthfulqa", "truthfulqa t-0"),
        (f"{place} 5", "gsm8k", "gsm8k g-0"),
    ]
    assert read(cleaned.report)[1]["ngram"] == "he sells 12 loaves at 3 coins which is 36 coins a day"
    noted = json.loads(sidecar(out).read_text())
    assert was_checked(out) and (noted["examples"], noted["dropped"], noted["n"]) == (3, 3, 13)
    assert noted["test_sets"]["gsm8k"] == {"texts": 2, "too_short": 0, "dropped": 3} and noted["sources"] == [str(source)]
    assert len(list(tmp_path.iterdir())) == 4


def test_a_directory_of_parquet(tmp_path: Path, tests_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a directory called ``d.parquet``, as Spark writes it, taken for one file."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    source, out = tmp_path / "d.parquet", tmp_path / "clean.jsonl"
    source.mkdir()
    (source / "_SUCCESS").touch()
    for number, records in enumerate((TRAIN[:3], TRAIN[3:])):
        write(source / f"part-{number}.snappy.parquet", records)
    decontaminate_files([str(source)], out, against=["gsm8k", "truthfulqa"], data_dir=tests_dir)
    assert read(out) == KEPT


def test_places_at_home(tmp_path: Path, tests_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches ``--out=~/x``, which no shell expands, written to a directory that is called ``~``."""
    (tmp_path / "home").mkdir()
    write(tmp_path / "home" / "a.jsonl", TRAIN)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    cleaned = decontaminate_files(["~/a.jsonl"], "~/out.jsonl", against=["gsm8k"], data_dir=tests_dir)
    assert cleaned.out == tmp_path / "home" / "out.jsonl" and was_checked(cleaned.out) and cleaned.report.exists()
    assert [file.name for file in tmp_path.iterdir()] == ["home"]


def test_lines_stay_byte_for_byte(tmp_path: Path, tests_dir: Path) -> None:
    """Catches JSON that is written anew (spaces, escapes, key order), a missing newline, and gzip files that differ each time."""
    first = b'{"domain" :"math","prompt":"caf\\u00e9 ","response":  "\xc3\xbc"}\n'
    (tmp_path / "a.jsonl").write_bytes(first * 2 + b"\n" + first.strip())
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(first))
    sources = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl.gz")]
    decontaminate_files(sources, tmp_path / "out.jsonl", against=["gsm8k"], data_dir=tests_dir)
    assert (tmp_path / "out.jsonl").read_bytes() == first * 4
    for name in ("one.jsonl.gz", "two.jsonl.gz"):
        decontaminate_files(sources, tmp_path / name, against=["gsm8k"], data_dir=tests_dir)
    assert (tmp_path / "one.jsonl.gz").read_bytes() == (tmp_path / "two.jsonl.gz").read_bytes()


def test_parquet_keeps_its_schema(tmp_path: Path, tests_dir: Path) -> None:
    """Catches types guessed anew from the rows, lost metadata and rows lost between row groups."""
    message = pyarrow.struct({"role": pyarrow.string(), "content": pyarrow.large_string()})
    fields = {"domain": pyarrow.string(), "messages": pyarrow.list_(message), "score": pyarrow.float32(), "n": pyarrow.int16()}
    schema = pyarrow.schema(fields, metadata={"made": "by a test"})
    records = [chat(f"q {n}", QUESTION if n % 10 == 0 else "a", score=None, n=n % 100) for n in range(9000)]
    table = pyarrow.Table.from_pylist(records, schema=schema)
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    decontaminate_files([str(tmp_path / "a.parquet")], tmp_path / "out.parquet", against=["gsm8k"], data_dir=tests_dir)
    given, found = (pyarrow.parquet.read_table(tmp_path / f"{name}.parquet") for name in ("a", "out"))
    assert found.schema.equals(given.schema, check_metadata=True) and found.schema.metadata == {b"made": b"by a test"}
    assert found.to_pylist() == [one for n, one in enumerate(records) if n % 10]


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("none.jsonl --against gsm8k --out o.jsonl", "none.jsonl: no such file or directory"),
        ("a.jsonl --against gsm8 --out o.jsonl", "--against 'gsm8': no such benchmark; did you mean 'gsm8k'? (known: "),
        ("a.jsonl --against miniworld_text --out o.jsonl", "--against 'miniworld_text': no such benchmark"),
        ("a.jsonl --against miniworld --out o.jsonl", "--against 'miniworld': no such benchmark"),
        ("a.jsonl --against paper --out o.jsonl", "TESTS/eval/humaneval_instruct_derived.jsonl.gz: no such file"),
        ("a.jsonl --against math --out o.jsonl", "TESTS/eval/math500.jsonl.gz: no such file"),
        ("a.jsonl --against gsm8k --out a.jsonl --overwrite", "a.jsonl: is or holds a.jsonl, which is read from; choose"),
        ("q.jsonl.overlaps.jsonl --against gsm8k --out q.jsonl --overwrite", "q.jsonl.overlaps.jsonl: is or holds "),
        ("r.jsonl.checked.json --against gsm8k --out r.jsonl --overwrite", "r.jsonl.checked.json: is or holds "),
        ("a.jsonl --against gsm8k --out TESTS/gsm8k_test.jsonl --overwrite", "TESTS/gsm8k_test.jsonl: is or holds "),
        ("d.parquet --against gsm8k --out d.parquet/part-0.jsonl --overwrite", "d.parquet/part-0.jsonl: is or holds "),
        ("d.parquet --against gsm8k --out o.parquet", "--out o.parquet: give a name that ends in one of .jsonl"),
        ("~nosuchuser/a.jsonl --against gsm8k --out o.jsonl", "~nosuchuser/a.jsonl: no such file or directory"),
        ("a.jsonl --against gsm8k --out b.jsonl", "b.jsonl: already exists"),
        ("a.jsonl --against gsm8k --out o.csv", "--out o.csv: give a name that ends in one of .jsonl"),
        ("a.jsonl --against gsm8k --out o.parquet", "--out o.parquet: give a name that ends in one of .jsonl"),
        ("a.parquet --against gsm8k --out o.jsonl", "--out o.jsonl: Parquet stays Parquet"),
        ("a.parquet a.jsonl --against gsm8k --out o.jsonl", "a.parquet and a.jsonl: Parquet and other files cannot become one"),
        ("a.parquet c.parquet --against gsm8k --out o.parquet", "c.parquet: has other columns or types than a.parquet"),
        ("cut.parquet --against gsm8k --out o.parquet", "cut.parquet: cannot be read as Parquet"),
        ("broken.jsonl --against gsm8k --out o.jsonl", "broken.jsonl line 2: is not valid JSON"),
        ("empty.jsonl --against gsm8k --out o.jsonl", "empty.jsonl: holds no example"),
        ("a.jsonl broken.jsonl --against gsm8k --out o.jsonl", "broken.jsonl line 2: is not valid JSON"),
        ("only.jsonl --against gsm8k --out o.jsonl", "only.jsonl: nothing is left, all 2 examples overlap with test data"),
        ("a.jsonl --against gsm8k --out folder --overwrite", "--out folder: give a name that ends in one of"),
        ("a.jsonl --against gsm8k --out folder.jsonl --overwrite", "folder.jsonl: is a directory"),
        ("a.jsonl --against gsm8k --out b.jsonl/o.jsonl", "b.jsonl/o.jsonl: cannot be created (File exists)"),
    ],
)
def test_mistakes(typed: str, told: str, tmp_path: Path, tests_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a traceback, another exit code or something left behind, changed or lost for each of a user's mistakes."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "b.jsonl", "a.parquet"):
        write(tmp_path / name, TRAIN)
    write(tmp_path / "c.parquet", [chat("q", "a")])
    write(tmp_path / "only.jsonl", TRAIN[2:4])
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:100])
    (tmp_path / "broken.jsonl").write_text(json.dumps(TRAIN[0]) + "\n{\n")
    (tmp_path / "empty.jsonl").touch()
    for name in ("q.jsonl.overlaps.jsonl", "r.jsonl.checked.json"):
        write(tmp_path / name, TRAIN)
    (tmp_path / "d.parquet").mkdir()
    write(tmp_path / "d.parquet" / "part-0.jsonl", TRAIN)
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "folder.jsonl" / "file").touch()
    folders = (tmp_path, tests_dir)
    before = {path: path.read_bytes() for folder in folders for path in folder.glob("**/*") if path.is_file()}
    result = CliRunner().invoke(
        app, ["decontaminate", *typed.replace("TESTS", str(tests_dir)).split(), "--data-dir", str(tests_dir)]
    )
    assert result.exit_code == 2 and result.stdout == "" and result.stderr.count("\n") == 1, result.output
    assert result.stderr.startswith("error: " + told.replace("TESTS", str(tests_dir)))
    assert {path: path.read_bytes() for folder in folders for path in folder.glob("**/*") if path.is_file()} == before


def test_command(tmp_path: Path, tests_dir: Path) -> None:
    """Catches tasks that do not lead to their test set, a table without its figures, and --overwrite that does nothing."""
    source, out = write(tmp_path / "train.jsonl", TRAIN), tmp_path / "clean.jsonl"
    typed = ["decontaminate", str(source), "--against", "gsm8k_cot,truthfulqa_mc2,gsm8k", "--out", str(out)]
    for extra in ([], ["--overwrite"]):
        result = CliRunner().invoke(app, [*typed, "--data-dir", str(tests_dir), *extra])
        assert result.exit_code == 0 and result.stderr == "", result.output
        cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.stdout.splitlines() if "│" in line]
        assert cells == [["gsm8k", "2", "0", "3"], ["truthfulqa", "3", "2", "1"]]
        assert "6 examples, 3 dropped" in result.stdout


def test_killed_half_way(tmp_path: Path, tests_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an output that looks finished although the run was stopped in the middle."""

    def stop(*args: Any) -> Any:
        raise KeyboardInterrupt

    source = write(tmp_path / "train.jsonl", TRAIN)
    monkeypatch.setattr("ultrafuser.data.decontaminate_files.find_overlaps", stop)
    with pytest.raises(KeyboardInterrupt):
        decontaminate_files([str(source)], tmp_path / "clean.jsonl", against=["gsm8k"], data_dir=tests_dir)
    assert list(tmp_path.iterdir()) == [source]


def test_a_recipe_warns_of_unchecked_data(tmp_path: Path, tests_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Catches a run on unchecked data that says nothing, also where marked ones are left out, and a warning of checked data."""
    source, out = write(tmp_path / "train.jsonl", TRAIN), tmp_path / "clean.jsonl"
    decontaminate_files([str(source)], out, against=["gsm8k"], data_dir=tests_dir)
    specialists = [{"name": name, "path": str(tmp_path)} for name in "ab"]
    for name, warned in (("train", True), ("clean", False)):
        data = {"directory": str(tmp_path), "train": [f"{name}.jsonl"], "domains": ["math"], "leave_out": "overlap"}
        gather(Recipe.model_validate({"name": "r", "output": "o", "specialists": specialists, "data": data}))
        assert any("never checked for test data" in message for message in caplog.messages) == warned
        caplog.clear()
