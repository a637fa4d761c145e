"""Our figures against those of lm-evaluation-harness's own command line, item by item."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from evaluation_world import make_models
from lm_eval import evaluator
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tqdm import tqdm

from ultrafuser.errors import UserError
from ultrafuser.evaluate.catalogue import TASKS
from ultrafuser.evaluate.harness import _record, harness_samples, run_task
from ultrafuser.evaluate.lm import UltraFuserLM
from ultrafuser.evaluate.room import Room
from ultrafuser.evaluate.score import mean_and_error, prompts_hash
from ultrafuser.evaluate.settings import EvalSettings
from ultrafuser.evaluate.tasks import TASKS_DIRECTORY

NEW_TOKENS = 24
SHARED = ("gsm8k", "sat_math", "aqua", "truthfulqa_mc2")
COMMAND_LINES = {
    "its own": ("lm_eval", "hf", ["trust_remote_code=True"], ["--include_path", str(TASKS_DIRECTORY)]),
    "with our model": ("ultrafuser.evaluate", "ultrafuser", [], []),
}
REAL_DATA = "ULTRAFUSER_TEST_DATA"  # a directory of the real test files


def command_line(which: str, model: Path, data: Path, out: Path) -> tuple[dict, dict]:
    """Results, and per-item records by task, of the harness's command line in a process of its own."""
    module, name, options, more = COMMAND_LINES[which]
    command = [sys.executable, "-m", module, "run", "--model", name, *more, "--output_path", str(out), "--log_samples"]
    command += ["--model_args", ",".join([f"pretrained={model}", "dtype=float32", *options]), "--apply_chat_template"]
    command += ["--tasks", *(TASKS[task].harness_name for task in SHARED), "--batch_size", "4", "--device", "cpu"]
    command += ["--gen_kwargs", f"max_gen_toks={NEW_TOKENS}"]
    command += ["--metadata", json.dumps({"data_dir": str(data)})]
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(out / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | offline)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(next(out.rglob("results_*.json")).read_text())
    items = {}
    for task in SHARED:
        lines = next(out.rglob(f"samples_{TASKS[task].harness_name}_*.jsonl")).read_text(encoding="utf-8").splitlines()
        items[task] = sorted(map(json.loads, lines), key=lambda item: item["doc_id"])
    return results["results"], items


def compare(model: Path, data: Path, results: dict, items: dict) -> None:
    """Every answer, what was read out of it, every item's score, the mean and the standard error."""
    lm = UltraFuserLM(str(model), device="cpu", batch_size=4, dtype="float32")
    settings = EvalSettings(out=Path("unused"), data_dir=data, max_new_tokens=NEW_TOKENS)
    for name in SHARED:
        task, theirs = TASKS[name], items[name]
        score = run_task(lm, task, settings)
        assert [record["score"] for record in score.records] == pytest.approx([item[task.metric] for item in theirs])
        for record, item in zip(score.records, theirs, strict=True):
            assert record["id"] == item["doc"]["id"]
            if name != "truthfulqa_mc2":  # likelihoods are compared by their scores
                assert record["answer"] == item["resps"][0][0]
                assert str(record["read"]) == str(item["filtered_resps"][0])
        figures = results[task.harness_name]
        metric = next(key for key in figures if key.split(",")[0] == task.metric)
        assert score.value == pytest.approx(figures[metric])
        assert score.standard_error == pytest.approx(figures[metric.replace(",", "_stderr,")])
        unparsed = next((key for key in figures if key.startswith("unparsed,")), None)
        assert score.unparsed == (figures[unparsed] if unparsed else 0)


@pytest.mark.parametrize("name", ["fused", "code"])
def test_figures_are_those_of_the_harness(trio, tiny_data, monkeypatch, name):
    """Its ``simple_evaluate``, which its command line calls, with its own model."""
    monkeypatch.setattr(evaluator, "add_env_info", lambda results: None)  # asks pip for a list of all packages
    manager = TaskManager(include_path=str(TASKS_DIRECTORY), include_defaults=False, metadata={"data_dir": str(tiny_data)})
    results = evaluator.simple_evaluate(
        model=HFLM(str(trio[name]), device="cpu", batch_size=4, dtype="float32"),
        tasks=[TASKS[task].harness_name for task in SHARED],
        task_manager=manager,
        apply_chat_template=True,
        gen_kwargs={"max_gen_toks": NEW_TOKENS},
        bootstrap_iters=10,
    )
    items = {task: sorted(results["samples"][TASKS[task].harness_name], key=lambda item: item["doc_id"]) for task in SHARED}
    compare(trio[name], tiny_data, results["results"], items)


@pytest.mark.slow
@pytest.mark.parametrize("which", COMMAND_LINES)
def test_figures_are_those_of_the_command_line(trio, tiny_data, tmp_path, which):
    """Once with the checkpoint's remote code, which knows nothing of this package's model; once without, as ``ultrafuser``."""
    compare(trio["fused"], tiny_data, *command_line(which, trio["fused"], tiny_data, tmp_path))


@pytest.mark.slow
@pytest.mark.skipif(REAL_DATA not in os.environ, reason=f"set {REAL_DATA} to a directory of the real test files")
@pytest.mark.parametrize("name", ["fused", "code"])
def test_figures_on_the_real_files(tmp_path, name):
    """As above on every real question, whose characters and lengths are not ours to choose, with room for all of them."""
    data, model = Path(os.environ[REAL_DATA]), make_models(tmp_path, max_position_embeddings=4096)[name]
    compare(model, data, *command_line("its own", model, data, tmp_path / "out"))


def test_settings_arrive(trio, tiny_data, monkeypatch):
    """``limit`` and ``max_new_tokens``, which two tasks after one another must not pass on to each other."""
    lm, lengths = UltraFuserLM(str(trio["math"]), device="cpu", batch_size=4), []
    generate = HFLM._model_generate

    def watched(self, context, max_length, **rest):
        lengths.append(max_length - context.shape[1])
        return generate(self, context, max_length=context.shape[1] + 2, **rest)

    monkeypatch.setattr(HFLM, "_model_generate", watched)
    short = EvalSettings(out=Path("unused"), data_dir=tiny_data, limit=2, max_new_tokens=5)
    score = run_task(lm, TASKS["gsm8k"], short)
    assert (score.n, len(score.records), {*lengths}) == (2, 2, {5})
    run_task(lm, TASKS["gsm8k_cot"], EvalSettings(out=Path("unused"), data_dir=tiny_data, limit=1))
    assert lengths[-1] > 100


def test_item_without_room_is_wrong(trio, tiny_data):
    """The harness would cut the question and score the answer to half of it; here it scores 0, is marked, and is told."""
    lm = UltraFuserLM(str(trio["math"]), device="cpu", batch_size=4, max_length=70)
    settings = EvalSettings(out=Path("unused"), data_dir=tiny_data, max_new_tokens=4)
    samples = harness_samples(lm, TASKS["gsm8k"], settings)
    long = [sample["doc_id"] for sample in samples if len(lm.tok_encode(sample["arguments"][0][0])) >= 70]
    score = run_task(lm, TASKS["gsm8k"], settings)
    assert 0 < len(long) < len(samples)
    assert [place for place, record in enumerate(score.records) if record.get("left_out")] == long
    assert score.notes[0].startswith(f"{len(long)} of {len(samples)} prompts were not asked and count as wrong")
    assert score.unparsed == sum(record["read"]["answer"] is None for record in score.records if not record.get("left_out"))


@pytest.mark.parametrize(
    ("tokens", "value", "left_out"),
    [((1, 1, 1), 1, False), ((1, 0, 1), 1, False), ((0, 0, 0), 0, False), ((1, 99, 1), 0, True), ((0, 99, 0), 0, True)],
)
def test_item_that_the_harness_calls_right(tokens, value, left_out):
    """Its 1 must stand unless an option was too long to be asked, or all are without tokens, where it takes the first."""
    room, pairs = Room(64), [("Q", option) for option in "ABC"]
    for pair, count in zip(pairs, tokens, strict=True):
        room.likelihood(*pair, (5, count))
    answers = [(-1.0, False), (-2.0, False), (-3.0, False)]
    sample = {"doc": {"id": "x"}, "doc_id": 0, "arguments": pairs, "resps": [[one] for one in answers], "acc": 1.0}
    record = _record(sample | {"filtered_resps": answers, "target": 0}, "acc", room)
    assert (record["score"], "left_out" in record) == (value, left_out)


@pytest.fixture
def always_right(trio, tiny_data, monkeypatch):
    """Makes a model that prefers the right option of every item of SAT-Math, with that task and, by item, (pair, is right?)."""
    task, settings = TASKS["sat_math_likelihood"], EvalSettings(out=Path("unused"), data_dir=tiny_data)
    samples = harness_samples(UltraFuserLM(str(trio["math"]), device="cpu", batch_size=4), task, settings)
    items = [[(tuple(pair), n == sample["target"]) for n, pair in enumerate(sample["arguments"])] for sample in samples]
    likely = {pair: -300.0 if right else -310.0 for item in items for pair, right in item}
    monkeypatch.setattr(HFLM, "loglikelihood", lambda self, requests, **_: [(likely[one.args], False) for one in requests])
    return lambda **options: (UltraFuserLM(str(trio["math"]), device="cpu", **options), task, settings, items)


def test_option_without_room_makes_its_item_wrong(always_right):
    """An item whose options could not all be asked has no choice to be scored: it scores 0, also where the harness says 1."""
    lm, task, settings, items = always_right()
    assert [record["score"] for record in run_task(lm, task, settings).records] == [1] * len(items)
    lengths = [max(len(lm.tok_encode("".join(pair))) for pair, _ in item) for item in items]
    room = max(lengths) - 2  # the last token is never read, so that those of `lengths` up to one more fit
    score = run_task(always_right(max_length=room)[0], task, settings)
    fits = [length <= room + 1 for length in lengths]
    assert any(fits) and not all(fits)
    assert [record["score"] for record in score.records] == fits
    assert [not record.get("left_out") for record in score.records] == fits


@pytest.mark.parametrize(("lost", "value"), [("wrong", 1), ("right", 0), ("all", 0)])
def test_option_that_cannot_be_written_is_never_chosen(always_right, monkeypatch, lost, value):
    """A wrong option without tokens may not make its item wrong, nor be chosen; where none can be written nothing is right."""
    lm, task, settings, items = always_right()
    gone = [pair for item in items for pair, right in item if {"wrong": not right, "right": right, "all": True}[lost]]
    lengths = UltraFuserLM._pair_lengths
    monkeypatch.setattr(UltraFuserLM, "_pair_lengths", lambda *all: (lengths(*all)[0], 0) if all[1:] in gone else lengths(*all))
    score = run_task(lm, task, settings)
    assert [(record["score"], "left_out" in record) for record in score.records] == [(value, False)] * len(items)
    assert score.notes[0].startswith(f"{len(gone)} of {sum(map(len, items))} options")


def test_options_without_room_are_not_unreadable(trio, tiny_data):
    """What was never asked would count among the answers that could not be read too; here that is counted option by option."""
    settings = EvalSettings(out=Path("unused"), data_dir=tiny_data, max_new_tokens=4)
    roomy = UltraFuserLM(str(trio["math"]), device="cpu", batch_size=4)
    samples = harness_samples(roomy, TASKS["truthfulqa"], settings)
    lengths = sorted(len(roomy.tok_encode(prompt)) for sample in samples for prompt, _ in sample["arguments"])
    room = lengths[len(lengths) // 2]
    lm = UltraFuserLM(str(trio["math"]), device="cpu", batch_size=4, max_length=room)
    score = run_task(lm, TASKS["truthfulqa"], settings)
    pairs = [pair for record in score.records for pair in zip(record["prompt"], record["read"], strict=True)]
    assert 0 < sum(length < room for length in lengths) < len(pairs) == len(lengths)
    assert score.unparsed == sum(read is None and len(lm.tok_encode(prompt)) < room for prompt, read in pairs)


def test_nothing_writes_over_our_bars(trio, tiny_data, capfd):
    """The harness logs, warns and makes bars of its own; afterwards everybody else's must work again."""
    lm = UltraFuserLM(str(trio["math"]), device="cpu", batch_size=4)
    level = logging.getLogger("lm_eval").level
    capfd.readouterr()
    for name in ("gsm8k", "sat_math_likelihood"):
        run_task(lm, TASKS[name], EvalSettings(out=Path("unused"), data_dir=tiny_data, limit=2, max_new_tokens=4))
    assert capfd.readouterr() == ("", "")
    list(tqdm([1], desc="another's"))
    assert "another's" in capfd.readouterr().err and logging.getLogger("lm_eval").level == level


def test_missing_data_is_one_line(trio, tmp_path):
    """The harness must not wrap the mistake in one of its own."""
    lm = UltraFuserLM(str(trio["math"]), device="cpu")
    with pytest.raises(UserError, match=r"agieval_aqua_rat.*no such file"):
        (tmp_path / "eval").mkdir()
        run_task(lm, TASKS["aqua"], EvalSettings(out=tmp_path, data_dir=tmp_path))


def test_mean_and_hash():
    """Against figures worked out by hand; the order of prompts is part of their hash."""
    assert mean_and_error([1.0, 0.0, 0.0, 1.0]) == (0.5, pytest.approx((1 / 3) ** 0.5 / 2))
    assert mean_and_error([1.0])[0] == 1 and mean_and_error([1.0])[1] != mean_and_error([1.0])[1]
    assert len({prompts_hash(["a", "b"]), prompts_hash(["b", "a"]), prompts_hash(["ab"]), prompts_hash(("a", "b"))}) == 3
