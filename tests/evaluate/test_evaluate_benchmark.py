"""Models x tasks: choosing, failing without losing anything, going on, and what is written."""

from __future__ import annotations

import gc
import html
import importlib.util
import json
import math
import re
import shutil
import subprocess
import sys
import weakref
from contextlib import contextmanager
from dataclasses import replace

import pytest
from evaluation_world import NAMES
from judged_world import write_alpaca_eval, write_mt_bench
from lm_eval.models.huggingface import HFLM
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer
from typer.testing import CliRunner

from fake_endpoint import FakeEndpoint, Reply
from ultrafuser.cli import app
from ultrafuser.errors import UserError
from ultrafuser.evaluate import benchmark
from ultrafuser.evaluate.benchmark import evaluate_models
from ultrafuser.evaluate.catalogue import TASKS
from ultrafuser.evaluate.choice import choose_tasks, require_judge
from ultrafuser.evaluate.directory import ANSWERS_FILE, claimed, prepare
from ultrafuser.evaluate.judged.settings import JudgeSettings
from ultrafuser.evaluate.models import find_models, specialist_rows
from ultrafuser.evaluate.paper import COLUMNS, PAPER
from ultrafuser.evaluate.report import to_markdown, unreadable
from ultrafuser.evaluate.results import BEST, Failure, Results
from ultrafuser.evaluate.score import TaskScore
from ultrafuser.evaluate.settings import EvalSettings
from ultrafuser.evaluate.table import MEAN
from ultrafuser.sandbox import levels


@pytest.fixture
def settings(tmp_path, tiny_data):
    return EvalSettings(out=tmp_path / "out", data_dir=tiny_data, limit=3, max_new_tokens=4, device="cpu")


def read(settings):
    """results.json, which must be JSON as the standard has it: no NaN."""

    def refuse(name):
        raise AssertionError(f"{name} in results.json")

    return json.loads((settings.out / "results.json").read_text(encoding="utf-8"), parse_constant=refuse)


def test_choosing_tasks():
    """Groups, chains of thought, repeats, and near misses."""
    names = [task.name for task in choose_tasks(["gsm8k", "miniworld", "gsm8k"])]
    assert names == ["gsm8k", "miniworld_text", "miniworld_code", "miniworld_math", "miniworld_mixed"]
    assert {task.paper_column for task in choose_tasks(["paper"])} == set(COLUMNS)
    assert [task.name for task in choose_tasks(["aqua", "truthfulqa_mc2"], cot=True)] == ["aqua_cot", "truthfulqa_mc2"]
    with pytest.raises(UserError, match=r"unknown task 'gms8k'; did you mean 'gsm8k'\?"):
        choose_tasks(["aqua", "gms8k"])
    assert [task.name for task in choose_tasks(["aqua", ""])] == ["aqua"]  # "aqua,"
    with pytest.raises(UserError, match="no task is given"):
        choose_tasks([])


def test_tasks_without_a_judge():
    """Who asks for all the paper's tasks and has no judge must be told what to type instead, and all of it."""
    tasks = choose_tasks(["paper"])
    with pytest.raises(UserError) as caught:
        require_judge(tasks, None)
    line, _, others = str(caught.value).partition(", or --tasks ")
    assert line == "alpaca_eval needs a judge: give --judge-url and --judge-model"
    assert choose_tasks(others.split(",")) == [task for task in tasks if task.name != "alpaca_eval"]
    require_judge(choose_tasks(others.split(",")), None)
    with pytest.raises(UserError, match=r"^alpaca_eval and mt_bench need a judge: give --judge-url and --judge-model$"):
        require_judge(choose_tasks(["alpaca_eval", "mt_bench"]), None)


def test_a_judge_without_tasks(tmp_path):
    """Who pays for a judge, and asks for tasks that none is needed for, has forgotten one, and must not find out at the end."""
    judge = JudgeSettings("http://localhost/v1", "m", tmp_path / "v.sqlite")
    require_judge(choose_tasks(["gsm8k", "mt_bench"]), judge)
    with pytest.raises(UserError, match=r"^--judge-url: there is nothing to judge, only alpaca_eval and mt_bench are; "):
        require_judge(choose_tasks(["gsm8k", "miniworld"]), judge)


def test_naming_models(trio, settings, tmp_path):
    """Names, the rows that are specialists, and mistakes before anything is loaded."""
    models = find_models([f"a={trio['text']}", trio["code"], trio["fused"]], settings)
    assert [model.name for model in models] == ["a", "code", "fused"]
    assert specialist_rows(models, None) == ["code"]
    assert specialist_rows(models, ["a", "code"]) == ["a", "code"]
    with pytest.raises(UserError, match="no model is called 'cod'; did you mean 'code'"):
        specialist_rows(models, ["cod"])
    with pytest.raises(UserError, match="two models are called 'code'; give other names: NAME="):
        find_models([trio["code"], f"code={trio['math']}"], settings)
    with pytest.raises(UserError, match="no such directory; did you mean"):
        find_models([f"{trio['code']}e"], settings)
    with pytest.raises(UserError, match=r"^--out .*: is the directory of 'code', which is judged; choose another$"):
        find_models([trio["fused"], trio["code"]], replace(settings, out=trio["code"] / "."))
    broken = shutil.copytree(trio["fused"], tmp_path / "broken")
    (broken / "config.json").write_text('{"model_type": "ultrafuser", "specialist_names": 3}')
    with pytest.raises(UserError, match=r"broken/config\.json: specialist_names is 3, not a list; fetch it again"):
        find_models([broken], settings)
    bare = shutil.copytree(trio["text"], tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    assert AutoTokenizer.from_pretrained(bare).chat_template is None
    with pytest.raises(UserError, match="no chat template; give --template"):
        find_models([bare], settings)
    assert find_models([bare], replace(settings, template="alpaca"))[0].name == "bare"
    with pytest.raises(UserError, match="neither one of"):
        find_models([bare], replace(settings, template="alpaka"))


def test_template_given_in_vain(trio, settings, caplog, tmp_path):
    """A model that has a template keeps it, and who gave another must hear so; not so for one that has none."""
    bare = shutil.copytree(trio["text"], tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    find_models([trio["code"], bare], replace(settings, template="alpaca"))
    find_models([trio["code"]], settings)
    assert caplog.messages == ["note: code: asked with its own chat template; --template is for models that have none"]


def test_nothing_is_lost_when_something_fails(trio, settings, tmp_path, tiny_data, monkeypatch, capsys):
    """A model that lacks a weight, a task without data, and a task that breaks for one model: the rest must be there."""
    broken = shutil.copytree(trio["math"], tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    weights.pop("model.norm.weight")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    run = benchmark.run_task

    def sometimes(lm, task, settings):
        if task.name == "aqua" and "aqua" not in asked:
            asked.append("aqua")
            raise ValueError("a mistake of ours\nin two lines")
        return run(lm, task, settings)

    asked: list[str] = []
    monkeypatch.setattr(benchmark, "run_task", sometimes)
    results = evaluate_models([trio["text"], broken, trio["code"]], ["gsm8k", "mbpp", "aqua", "miniworld_text"], settings)
    assert isinstance(results, Results) and results.finished
    done = {place for place, outcome in results.outcomes.items() if isinstance(outcome, TaskScore)}
    both = [(model, task) for model in ("text", "code") for task in ("gsm8k", "miniworld_text")]
    assert done == {*both, ("code", "aqua")}
    assert len(results.outcomes) == 12 and all(isinstance(one, Failure) for one in results.failures.values())
    assert "no such file" in results.failures["code", "mbpp"].reason
    assert "lack 1 weight, such as model.norm.weight" in results.failures["broken", "gsm8k"].reason
    assert results.failures["text", "aqua"].reason.startswith("ValueError: a mistake of ours (more in ")
    assert "in two lines" in (settings.out / "failures.log").read_text()
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if line.startswith("failed: ")]) == 3
    found = read(settings)
    assert found["finished"] and "failed" in found["scores"]["text"]["aqua"] and found["scores"]["code"]["aqua"]["n"] == 3
    row = next(line for line in (settings.out / "results.md").read_text().splitlines() if line.startswith("| text"))
    assert row.count("failed") == 2 and row.endswith("| – |")  # no mean over some of the tasks


@pytest.mark.parametrize(
    ("offered", "failing", "reason", "fact"),
    [
        ("limits", {"humaneval", "mbpp_cot"}, "where they could read your files", "limits"),
        ("none", {"humaneval", "mbpp_cot", "miniworld_code"}, "cannot be run here", "none"),
    ],
)
def test_programs_that_may_not_run(trio, settings, monkeypatch, offered, failing, reason, fact):
    """Tasks whose answers cannot be judged must fail before a question is asked, and no others, nor the record of the machine."""
    monkeypatch.setattr(levels, "works", lambda level: level == offered)
    monkeypatch.delenv(levels.VARIABLE, raising=False)
    asked: list[str] = []
    run = benchmark._run
    monkeypatch.setattr(benchmark, "_run", lambda lm, task, settings: asked.append(task.name) or run(lm, task, settings))
    tasks = ["humaneval", "miniworld_text", "mbpp_cot", "miniworld_code"]
    results = evaluate_models([trio["code"]], tasks, settings)
    assert {task for _, task in results.failures} == failing and {*asked} == {*tasks} - failing
    assert all(reason in failure.reason for failure in results.failures.values())
    assert read(settings)["facts"]["sandbox"] == fact


def test_math_without_what_compares_its_answers(trio, settings, monkeypatch):
    """Must be said before a question is asked, not by each model after all of its answers."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "math_verify" else find(name, *rest))
    monkeypatch.setattr(HFLM, "_model_generate", None)
    results = evaluate_models([trio["code"]], ["math", "math_cot"], settings)
    assert [failure.reason for failure in results.failures.values()] == [
        "MATH answers are compared by math-verify: pip install 'ultrafuser[eval]'"
    ] * 2


def test_going_on(trio, settings, monkeypatch):
    """The same command asks nothing again and finds the same; another one may not replace what is there unless told to."""
    first = evaluate_models([trio["code"]], ["gsm8k", "miniworld_text"], settings)
    monkeypatch.setattr(HFLM, "_model_generate", None)
    again = evaluate_models([trio["code"]], ["gsm8k", "miniworld_text"], settings)
    assert not again.failures
    for place, score in first.scores.items():
        assert replace(again.scores[place], seconds=0) == replace(score, seconds=0)
    with pytest.raises(UserError, match=r"another evaluation \(limit was 3, is 2\)"):
        evaluate_models([trio["code"]], ["gsm8k", "miniworld_text"], replace(settings, limit=2))
    assert (
        evaluate_models([f"b={trio['code']}"], ["gsm8k"], replace(settings, limit=2, overwrite=True)).scores["b", "gsm8k"].n == 2
    )
    assert [path.name for path in (settings.out / "samples").iterdir()] == ["b"]


def test_what_another_evaluation_left_goes_with_its_results(tmp_path):
    """Items and reports of models that are no longer judged must not stay beside new results, nor may one's own go."""
    out = tmp_path / "out"

    def left():
        ours = ("answers", ".lock")
        return sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and not path.name.startswith(ours))

    def leave():
        for name in ("samples/old/gsm8k.jsonl", ".specialists/old/config.json", "results.md", "report.html", "failures.log"):
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).touch()

    prepare(out, {"limit": 3}, overwrite=False)
    leave()
    (out / "results.json").write_text('{"question": {"limit": 3}}')
    with claimed(out, {"limit": 3}) as kept:
        kept.keep("key", "an answer")
    assert left() == ["failures.log", "report.html", "results.json", "results.md", "samples/old/gsm8k.jsonl"]
    with pytest.raises(UserError, match=r"another evaluation \(limit was 3, is 2\)"):
        prepare(out, {"limit": 2}, overwrite=False)
    leave()
    prepare(out, {"limit": 2}, overwrite=True)
    with claimed(out, {"limit": 2}) as kept:
        assert left() == [] and not (out / "samples").exists()
        assert kept.find(["key"]) == {"key": "an answer"}
    (out / "results.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        prepare(out, {"limit": 2}, overwrite=False)
    prepare(out, {"limit": 2}, overwrite=True)
    with claimed(out, {"limit": 2}):
        assert left() == []


@pytest.mark.parametrize("text", ["[]", "null", '{"scores": {}}', '{"question": 3}'])
@pytest.mark.parametrize("overwrite", [False, True])
def test_results_of_another_making_are_left_alone(tmp_path, text, overwrite):
    """A results.json that is not ours must be refused in one line, and neither crash nor be written over."""
    (tmp_path / "results.json").write_text(text)
    with pytest.raises(UserError, match=r"results\.json: is not from 'ultrafuser eval'; choose another --out"):
        prepare(tmp_path, {"limit": 2}, overwrite=overwrite)
    assert (tmp_path / "results.json").read_text() == text


def test_one_evaluation_at_a_time(trio, settings):
    """Two in one directory would take each other's extracted specialists away and overwrite each other's results."""
    settings.out.mkdir(exist_ok=True)
    with claimed(settings.out, {}):
        with pytest.raises(UserError, match="another evaluation is going on there"):
            evaluate_models([trio["code"]], ["miniworld_text"], settings)
        assert not (settings.out / "results.json").exists()
    assert [file.name for file in settings.out.iterdir()] == [ANSWERS_FILE]


def test_directory_that_cannot_be_written(tmp_path):
    """A directory that is there, but takes no file, or that cannot be made, must be one line."""
    (tmp_path / "file").touch()
    for place in ("a" * 300, "a" * 300 + "/b", "file/b"):
        with pytest.raises(UserError, match=r"cannot be created \((File name too long|Not a directory)\); choose another"):
            prepare(tmp_path / place, {}, overwrite=False)
    (tmp_path / ".lock").mkdir()
    with pytest.raises(UserError, match=r"cannot be written .*; choose another output"), claimed(tmp_path, {}):
        pass


def test_one_model_at_a_time(trio, settings, monkeypatch):
    """The model before must be gone when the next is loaded: two do not fit where one does."""
    opened, kept, open_model = [], [], benchmark.open_model

    @contextmanager
    def watched(*args):
        kept.append([model() is not None for model in opened])
        with open_model(*args) as lm:
            opened.append(weakref.ref(lm.model))
            yield lm

    monkeypatch.setattr(benchmark, "open_model", watched)
    gc.disable()  # what is collected by chance may as well not be
    try:
        results = evaluate_models([trio["text"], trio["code"]], ["miniworld_text"], settings)
    finally:
        gc.enable()
    assert not results.failures and kept == [[], [False]]


def test_model_whose_answers_end_at_no_token(trio, settings, tmp_path):
    """Must fail in one line that says what to correct, not as a mistake of ours in every task."""
    broken = shutil.copytree(trio["code"], tmp_path / "broken")
    (broken / "generation_config.json").write_text('{"eos_token_id": "abc"}')
    results = evaluate_models([broken], ["miniworld_text"], settings)
    assert results.failures["broken", "miniworld_text"].reason.startswith(f"{broken}: its generation settings end an answer at")


def test_specialists_inside_a_fused_model(trio, settings):
    """Taken out of the fused model they must score as the models that went in, and be the rows of the bar; no copy stays."""
    tasks = ["truthfulqa_mc2", "gsm8k"]
    inside = evaluate_models([trio["fused"]], tasks, replace(settings, with_specialists=True))
    outside = evaluate_models([trio[name] for name in NAMES], tasks, replace(settings, out=settings.out / "other"))
    assert list(inside.models) == [*NAMES, "fused"] and not inside.failures
    for place, score in outside.scores.items():
        assert inside.scores[place].value == score.value
        assert inside.scores[place].records == score.records
    rows = inside.tables()[0].rows()
    assert list(rows) == [*NAMES, BEST, "fused"]
    title = TASKS["truthfulqa_mc2"].title
    best = max(score.value for (_, task), score in outside.scores.items() if task == "truthfulqa_mc2")
    assert rows[BEST][title].value == pytest.approx(100 * best)
    assert not (settings.out / ".specialists").exists()


def test_a_specialist_beside_another_model_of_its_name(trio, settings):
    """A given model of an inside one's name, which may be quite another, must neither take its row nor make up the bar."""
    both = replace(settings, with_specialists=True)
    results = evaluate_models([trio["fused"], f"math={trio['text']}"], ["truthfulqa_mc2"], both)
    assert list(results.models) == ["text", "code", "fused.math", "fused", "math"] and not results.failures
    assert results.specialists == ["text", "code", "fused.math"]
    alone = evaluate_models([trio["math"]], ["truthfulqa_mc2"], replace(settings, out=settings.out / "alone"))
    of = {model: score.records for (model, _), score in results.scores.items()}
    assert of["fused.math"] == alone.scores["math", "truthfulqa_mc2"].records != of["math"]
    with pytest.raises(UserError, match=r"two models are called 'fused\.math'; give other names"):
        find_models([trio["fused"], f"math={trio['text']}", f"fused.math={trio['math']}"], both)


def test_specialists_of_models_that_are_not_fused(trio, settings):
    """--with-specialists given in vain must be one line before anything is asked, and no mistake where one model is fused."""
    inside = replace(settings, with_specialists=True)
    told = rf"--with-specialists: no fused model is among those given \({trio['code']}, {trio['text']}\); leave the option out"
    with pytest.raises(UserError, match=told):
        evaluate_models([trio["code"], f"b={trio['text']}"], ["gsm8k"], inside)
    assert not settings.out.exists()
    assert len(find_models([trio["fused"], f"b={trio['text']}"], inside)) == 5


def made(settings, values, *, tasks=("gsm8k", "mt_bench"), specialists=("a", "b")) -> Results:
    """Results with given values, by model."""
    models = list(values)
    results = Results(models, choose_tasks(tasks), specialists, settings, {}, {})
    settings.out.mkdir(parents=True)
    for model, scores in values.items():
        for task, value in zip(results.tasks, scores, strict=True):
            outcome = Failure("no") if value is None else TaskScore(task.name, value, 0.01, 10, 0, 1.0, [], "", [])
            results.add(model, task, outcome)
    return results


def test_tables(settings):
    """Shares and marks do not share a table or a mean; ± is the standard error; no bar where a specialist has no score."""
    shares, marks = made(settings, {"a": (0.5, 6.0), "b": (None, 7.0), "fused": (0.25, 6.5)}).tables()
    assert shares.to_markdown().splitlines()[2:] == [
        "| a | **50.00** ±1.00 |",
        "| b | failed |",
        f"| *{BEST}* | – |",
        "| fused | 25.00 ±1.00 |",
    ]
    assert marks.rows()[BEST]["MT-Bench"].value == 7.0 and marks.to_dict()["full"] == 10


def test_means_are_over_what_there_is(settings):
    """A task that failed for all, or that the paper does not tell, must not take away every mean; and it must be said."""
    tasks = ("gsm8k", "math", "mbpp")
    (table,) = made(settings, {"a": (0.5, 0.3, None), "b": (0.2, None, None)}, tasks=tasks).tables()
    assert table.rows()["a"][MEAN].value == pytest.approx(40) and MEAN not in table.rows()["b"]
    assert table.remarks() == ["mean: without MBPP"]
    beside = replace(settings, out=settings.out / "paper", paper=True)
    results = made(beside, {"a": (0.5, 0.3, 0.1), "b": (0.2, 0.2, 0.2)}, tasks=tasks)
    rows = results.tables()[0].rows()
    assert rows["a"][MEAN].value == pytest.approx(40)
    assert rows["paper: UltraFuser"][MEAN].value == pytest.approx((54.59 + 11.36) / 2)
    assert "\n\nmean: without MBPP\n\n" in to_markdown(results)


def test_unreadable_answers_are_told_with_the_rule(settings):
    """They must stand in the terminal and in results.md, and only where there are any."""
    results = made(settings, {"a": (0.5, 6.0), "b": (0.2, 7.0)})
    assert list(unreadable(results)) == []
    results.scores["a", "gsm8k"].unparsed, results.scores["b", "gsm8k"].unparsed = 1, 3
    rule = TASKS["gsm8k"].extraction
    assert list(unreadable(results)) == [f"gsm8k: a: 1 answer unreadable, b: 3 answers unreadable. Rule: {rule}"]
    text = to_markdown(results)
    assert "- a: 10 items; 1 answer unreadable; 1 s\n- b: 10 items; 3 answers unreadable; 1 s\n" in text
    assert text.count("unreadable; ") == 2 and "## Task by task\n" in text


def test_paper_rows(settings):
    """UltraFuser's seven scores average 46.05, not the printed 47.48; the paper's rows are never best, nor specialists."""
    tasks = [task.name for task in choose_tasks(["paper"])]
    results = made(replace(settings, paper=True), {"a": [0.01] * 7, "b": [0.02] * 7}, tasks=tasks)
    (table,) = results.tables()
    rows = table.rows()
    assert round(rows["paper: UltraFuser"][MEAN].value, 2) == 46.05
    assert math.isnan(rows["paper: UltraFuser"][MEAN].low)
    assert round(rows["paper: best specialist per task"][MEAN].value, 2) == 44.96
    assert set(table.best().values()) == {2.0} and rows[BEST][MEAN].value == pytest.approx(2.0)
    specialists = [PAPER[f"paper: {name}"] for name in ("UltraLM-2 (text)", "CodeLlama (code)", "WizardMath (math)")]
    best = [max(one[column] for one in specialists) for column in COLUMNS]
    assert best == [PAPER["paper: best specialist per task"][column] for column in COLUMNS]


def test_page(trio, settings):
    """The report loads nothing, escapes what a model says, and shows how answers were read."""
    results = evaluate_models([trio["text"]], ["gsm8k"], settings)
    results.scores["text", "gsm8k"].records[0]["answer"] = "<script>alert(1)</script>"
    benchmark.write_reports(results)
    page = (settings.out / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page
    assert not re.search(r"""(src|href)=["'](?!data:,)|url\(|@import""", page)
    assert TASKS["gsm8k"].extraction in html.unescape(page) and "prefers-color-scheme: dark" in page
    samples = [json.loads(line) for line in (settings.out / "samples/text/gsm8k.jsonl").read_text("utf-8").splitlines()]
    assert len(samples) == 3 and {"id", "prompt", "answer", "read", "target", "score", "unparsed"} <= set(samples[0])


def test_command(trio, settings, tiny_data):
    """What is typed arrives, the table is printed, a failed task makes exit code 2, and a mistake is one line."""
    command = ["eval", str(trio["code"]), "--out", str(settings.out), "--data-dir", str(tiny_data), "--device", "cpu"]
    command += ["--limit", "2", "--max-new-tokens", "3", "--batch-size", "2", "--cot", "--paper"]
    done = CliRunner().invoke(app, [*command, "--tasks", "aqua,mbpp"])
    assert done.exit_code == 2 and "paper: UltraFuser" in done.stdout and "failed" in done.stdout
    assert list(read(settings)["tasks"]) == ["aqua_cot", "mbpp_cot"]
    wrong = CliRunner().invoke(app, [*command, "--tasks", "gsm8"])
    assert wrong.exit_code == 2 and wrong.stderr.count("\n") == 1 and "did you mean 'gsm8k'" in wrong.stderr
    nowhere = CliRunner().invoke(app, [*command, "--tasks", "gsm8k", "--data-dir", "nowhere"])
    assert nowhere.exit_code == 2 and "--data-dir nowhere: no such directory" in nowhere.stderr
    (settings.out / "file").touch()
    occupied = CliRunner().invoke(app, [*command, "--tasks", "gsm8k", "--out", str(settings.out / "file")])
    assert occupied.exit_code == 2 and "file: cannot be created (File exists); choose another output" in occupied.stderr
    judged = CliRunner().invoke(app, [*command, "--tasks", "mt_bench"])
    assert judged.exit_code == 2 and "mt_bench needs a judge: give --judge-url and --judge-model" in judged.stderr
    paper = CliRunner().invoke(app, [*command, "--tasks", "paper"])
    others = "truthfulqa_cot,humaneval_cot,gsm8k_cot,math_cot,sat_math_cot,aqua_cot"
    assert paper.exit_code == 2 and f"--judge-model, or --tasks {others}\n" in paper.stderr


def test_judged_tasks(trio, settings, tmp_path):
    """A judge that always says B judges each pair in both orders; one that is not there fails its tasks only."""
    data = shutil.copytree(settings.data_dir, tmp_path / "with_questions")
    write_alpaca_eval(data, 2)
    write_mt_bench(data, 2)
    verdict = json.dumps({"reason": "so", "verdict": "B", "rating": 7})
    tasks, store = ["alpaca_eval", "gsm8k", "mt_bench"], tmp_path / "verdicts.sqlite"
    with FakeEndpoint(script=lambda body, n: Reply(text=verdict)) as judge:
        there = replace(settings, data_dir=data, judge=JudgeSettings(judge.base_url, "fake", store, data_dir=data))
        results = evaluate_models([trio["code"]], tasks, there)
        url = judge.base_url
    assert not results.failures
    assert results.scores["code", "alpaca_eval"].value == 0.5 and results.scores["code", "mt_bench"].value == 7
    shares, marks = results.tables()
    assert shares.rows()["code"]["AlpacaEval"].value == 50.0 and marks.rows()["code"]["MT-Bench"].value == 7.0
    gone = replace(there, out=tmp_path / "gone", judge=JudgeSettings(url, "fake", store, data_dir=data))
    results = evaluate_models([trio["code"]], tasks, gone)
    assert set(results.failures) == {("code", "alpaca_eval"), ("code", "mt_bench")}
    assert all("cannot be reached" in failure.reason for failure in results.failures.values())
    with FakeEndpoint(script=lambda body, n: Reply(text=verdict)) as judge:
        elsewhere = JudgeSettings(judge.base_url, "fake", store, data_dir=data)
        before = read(there)
        with pytest.raises(UserError, match="give --judge-moved"):
            evaluate_models([trio["code"]], tasks, replace(there, judge=elsewhere))
        assert read(there) == before  # refused before the results were touched
        moved = evaluate_models([trio["code"]], tasks, replace(there, judge=replace(elsewhere, moved=True)))
        assert not moved.failures and not judge.requests


def test_harness_is_imported_late():
    """Importing the engine may not import lm-evaluation-harness, which takes seconds and is an extra."""
    code = "import sys, ultrafuser.evaluate.benchmark, ultrafuser.cli.evaluation; print('lm_eval' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_mistake_on_the_harness_own_command_line():
    """Must be one line and exit code 2, as everywhere."""
    command = [sys.executable, "-m", "ultrafuser.evaluate", "run", "--model", "ultrafuser", "--tasks", "ultrafuser_gsm8k"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: --model_args: give the model: pretrained=DIR, or a hub id"
