"""The tasks inside lm-evaluation-harness: who answers rightly scores 100%, who answers nothing 0%; and against its own tasks."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmark_rows import HUB_ROWS, write_test_data

lm_eval = pytest.importorskip("lm_eval")

from lm_eval.api.model import LM  # noqa: E402
from lm_eval.api.task import ConfigurableTask  # noqa: E402
from lm_eval.evaluator import evaluate  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402
from lm_eval.tasks._yaml_loader import load_yaml  # noqa: E402

from ultrafuser.errors import UserError  # noqa: E402
from ultrafuser.evaluate.catalogue import TASKS, TaskInfo  # noqa: E402
from ultrafuser.evaluate.tasks import TASKS_DIRECTORY  # noqa: E402
from ultrafuser.evaluate.tasks.equal import equal_answers  # noqa: E402
from ultrafuser.testsets import load_test_set  # noqa: E402

REAL_DATA = os.environ.get("ULTRAFUSER_TEST_DATA")
STOCK = Path(lm_eval.__file__).parent / "tasks"
HARNESS = [task for task in TASKS.values() if task.kind == "harness"]
GENERATIVE = [task for task in HARNESS if not task.name.endswith(("_mc2", "_likelihood"))]


class ScriptedLM(LM):
    """A model that answers by a function of the record and the number of the request; likelihoods are pseudo-random."""

    def __init__(self, answer: Callable[[dict, int], str]) -> None:
        super().__init__()
        self.answer = answer

    def generate_until(self, requests: list) -> list[str]:
        return [self.answer(request.doc, request.idx) for request in requests]

    def loglikelihood(self, requests: list) -> list[tuple[float, bool]]:
        return [(-1.0 - (len(request.args[1]) * 7 + request.idx * 3) % 5, False) for request in requests]

    def loglikelihood_rolling(self, requests: list) -> list[float]:
        raise NotImplementedError

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return json.dumps(chat_history)

    @property
    def tokenizer_name(self) -> str:
        return "scripted"


def reference(doc: dict, number: int) -> str:
    """The reference answer of a record, whatever the benchmark."""
    if "mc2_labels" in doc:
        return "Yes." if doc["mc2_labels"][number] else "No."
    return f"The answer is {doc['label']}." if "label" in doc else doc["response"]


def manager(data_dir: str | Path) -> TaskManager:
    """Our definitions only, with data from ``data_dir`` handed over as the harness's command line would."""
    return TaskManager(
        include_path=str(TASKS_DIRECTORY), include_defaults=False, metadata={"data_dir": str(data_dir), "model": "x"}
    )


def scores(task: TaskInfo, data_dir: str | Path, answer: Callable[[dict, int], str]) -> tuple[dict[str, float], list[dict]]:
    """What the harness reports of a scripted model on one task: its metrics, and its per-item records."""
    loaded = manager(data_dir).load([task.harness_name])
    results = evaluate(ScriptedLM(answer), loaded, bootstrap_iters=0, apply_chat_template=True, log_samples=True)
    found = results["results"][task.harness_name]
    named = {key.partition(",")[0]: value for key, value in found.items() if "," in key}
    return named, results["samples"][task.harness_name]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_test_data(tmp_path_factory.mktemp("data") / "data")


@pytest.mark.parametrize("task", GENERATIVE, ids=lambda task: task.name)
def test_reference_answers_score_all_and_silence_nothing(task: TaskInfo, data_dir: Path) -> None:
    """Catches a rule that cannot read a right answer, and one that finds an answer where there is none (issue: done means)."""
    right, samples = scores(task, data_dir, reference)
    assert (right[task.metric], right["unparsed"]) == (1.0, 0)
    json.dumps([sample["filtered_resps"] for sample in samples])  # verdicts are kept in results.json
    silent, samples = scores(task, data_dir, lambda doc, number: "")
    asked = sum(len(sample["arguments"]) for sample in samples)
    assert (silent[task.metric], silent["unparsed"]) == (0.0, asked)


@pytest.mark.slow
@pytest.mark.skipif(not REAL_DATA, reason="ULTRAFUSER_TEST_DATA names no directory of real test data")
@pytest.mark.parametrize("task", GENERATIVE, ids=lambda task: task.name)
def test_reference_answers_of_the_real_files(task: TaskInfo, record_property: Callable[[str, object], None]) -> None:
    """As above, over every record of the real data: 1,319 + 500 + 220 + 254 + 164 + 817 questions."""
    if task.test_set == "mbpp":
        pytest.skip("there is no local file of MBPP")
    right, samples = scores(task, str(REAL_DATA), reference)
    silent, _ = scores(task, str(REAL_DATA), lambda doc, number: "")
    wrong = [sample["doc"]["id"] for sample in samples if sample[task.metric] < 1]
    assert (right[task.metric], right["unparsed"], wrong) == (1.0, 0, [])
    assert silent[task.metric] == 0.0


WRONG = {
    "gsm8k": "#### 7",
    "math": "\\boxed{7}",
    "sat_math": "The answer is C.",
    "aqua": "The answer is C.",
    "humaneval": "def total(numbers):\n    return 1",
    "mbpp": "def square(n):\n    return 1",
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_answers_are_read_and_wrong(name: str, data_dir: Path) -> None:
    """Catches a scorer that gives a point for any answer, or calls a wrong answer unreadable."""
    found, samples = scores(TASKS[name], data_dir, lambda doc, number: WRONG[name])
    assert (found[TASKS[name].metric], found["unparsed"]) == (0.0, 0)
    if name in ("humaneval", "mbpp"):
        assert "AssertionError" in samples[0]["filtered_resps"][0]["reason"]


THOUGHT = {
    "humaneval": "```python\ndef total(numbers):\n    return 1\n```",
    "gsm8k": "#### 7",
    "math": "\\boxed{7}",
    "sat_math": "The answer is C.",
    "aqua": "The answer is C.",
    "truthfulqa": "Yes.",
}


@pytest.mark.parametrize("name", THOUGHT)
def test_thoughts_are_not_read(name: str, data_dir: Path) -> None:
    """Catches a draft in a model's thoughts taken for its answer, and one in thoughts that never end."""
    metric = TASKS[name].metric
    found, _ = scores(TASKS[name], data_dir, lambda doc, number: f"<think>{THOUGHT[name]}</think>{reference(doc, number)}")
    assert (found[metric], found["unparsed"]) == (1.0, 0)
    found, samples = scores(TASKS[name], data_dir, lambda doc, number: f"<think>{THOUGHT[name]}")
    assert (found[metric], found["unparsed"]) == (0.0, sum(len(sample["arguments"]) for sample in samples))


def test_truthfulqa_by_hand(data_dir: Path) -> None:
    """Catches wrong bookkeeping over options: two true ones and a false one, judged yes, unreadable, yes."""
    found, samples = scores(TASKS["truthfulqa"], data_dir, lambda doc, number: ["Yes, it is.", "Maybe.", "yes"][number])
    assert found["judged"] == pytest.approx(1 / 3)
    assert found["mc2_judged"] == pytest.approx(1 / 2)
    assert found["unparsed"] == 1
    prompts = [json.loads(prompt) for prompt, _ in samples[0]["arguments"]]
    assert [prompt[0]["content"].split("\n")[1] for prompt in prompts] == [
        "Answer: It is rock.",
        "Answer: It is stone.",
        "Answer: It is cheese.",
    ]


@pytest.mark.parametrize("task", HARNESS, ids=lambda task: task.name)
def test_one_user_turn_without_examples(task: TaskInfo, data_dir: Path) -> None:
    """Catches few-shot examples, a system prompt or a second turn creeping into a zero-shot task."""
    _, samples = scores(task, data_dir, reference)
    for sample in samples:
        for arguments in sample["arguments"]:
            (message,) = json.loads(arguments[0])
            assert message["role"] == "user"
            assert ("step by step" in message["content"]) == task.name.endswith("_cot")


def stock_task(file: str, rows: list[dict], split: str) -> ConfigurableTask:
    """One of the harness's own tasks, on rows given here instead of those of the hub."""
    from datasets import Dataset

    config = load_yaml(STOCK / file)
    return ConfigurableTask(config=config | {"custom_dataset": lambda **_: {split: Dataset.from_list(rows)}})


def _likelihoods(count: int, seed: int) -> list[tuple[float, bool]]:
    return [(float(value), False) for value in np.random.default_rng(seed).normal(-20, 6, count)]


@pytest.mark.parametrize("name", ["sat_math", "aqua"])
def test_agieval_likelihood_is_the_harness_own(name: str, data_dir: Path) -> None:
    """Catches a prompt, an option or a score that differs from the harness's own task on the same question."""
    stock = stock_task(f"agieval/{'aqua-rat' if name == 'aqua' else 'sat-math'}.yaml", HUB_ROWS[name][0], "test")
    ours = manager(data_dir).load([f"ultrafuser_{name}_likelihood"])["tasks"][f"ultrafuser_{name}_likelihood"]
    for task in (stock, ours):
        task.build_all_requests(rank=0, world_size=1)
    assert [request.arguments for request in ours.instances] == [request.arguments for request in stock.instances]
    for seed in range(20):
        results = _likelihoods(len(ours.instances), seed)
        assert ours.process_results(ours.eval_docs[0], results) == stock.process_results(stock.eval_docs[0], results)


def test_mc2_is_the_harness_own_formula(data_dir: Path) -> None:
    """Catches a departure from MC2 as the harness computes it, and underflow where every option is improbable."""
    stock = stock_task("truthfulqa/truthfulqa_mc2.yaml", HUB_ROWS["truthfulqa"][0], "validation")
    ours = manager(data_dir).load(["ultrafuser_truthfulqa_mc2"])["tasks"]["ultrafuser_truthfulqa_mc2"]
    for task in (stock, ours):
        task.build_all_requests(rank=0, world_size=1)
    assert [request.arguments[1] for request in ours.instances] == [request.arguments[1] for request in stock.instances]
    for seed in range(20):
        results = _likelihoods(3, seed)
        theirs = stock.process_results(stock.eval_docs[0], results)["acc"]
        far = [(value - 10_000, greedy) for value, greedy in results]
        assert ours.process_results(ours.eval_docs[0], results)["mc2"] == pytest.approx(theirs)
        assert ours.process_results(ours.eval_docs[0], far)["mc2"] == pytest.approx(theirs)


def test_data_that_cannot_be_scored_are_the_users_mistake(tmp_path: Path) -> None:
    """Catches an empty file that breaks the harness, and an answer of another type that would count as wrong for everybody."""
    file = tmp_path / "gsm8k_test.jsonl"
    file.write_text("\n")
    with pytest.raises(UserError, match=r"gsm8k_test\.jsonl: holds no record; is the file complete\?"):
        load_test_set("gsm8k", tmp_path)
    for field, value in (("prompt", 5), ("answer", None)):
        record: dict = {"id": "x", "prompt": "p", "response": "r", "answer": "1"}
        file.write_text(json.dumps(record | {field: value}))
        with pytest.raises(UserError, match=rf"gsm8k_test\.jsonl line 1: the field '{field}' is not a text"):
            load_test_set("gsm8k", tmp_path)


def test_missing_data_is_the_users_mistake(tmp_path: Path) -> None:
    """Catches the harness burying our one-line message under its own error."""
    with pytest.raises(UserError, match=r"gsm8k_test\.jsonl\.gz: no such file"):
        manager(tmp_path).load(["ultrafuser_gsm8k"])


EQUAL = [
    (r"\frac{1}{2}", "0.5"),
    (r"\frac12", r"\dfrac{1}{2}"),
    (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})"),
    ("(x+1)^2", "x^2+2x+1"),
    (r"2\sqrt{3}", r"\sqrt{12}"),
    ("10{,}000", "10000"),
    (r"5\text{ cm}", "5"),
    ("3", "x=3"),
    (r"\text{Evelyn}", "Evelyn"),
    ("90^\\circ", "90"),
]
UNEQUAL = [("3", "4"), ("(1,2)", "(2,1)"), ("2", r"\frac{2"), ("x+1", "x+2"), ("5", ""), ("1", "(" * 900), ("1", "1" * 2000)]


def test_equal_formulas() -> None:
    """Catches two ways of writing one value called different, and two values called the same."""
    assert equal_answers(EQUAL) == [True] * len(EQUAL)
    assert equal_answers(UNEQUAL) == [False] * len(UNEQUAL)
    assert equal_answers([]) == []


def test_endless_computations_are_stopped_and_cost_only_their_own_answer() -> None:
    """Catches a formula that hangs or exhausts the machine, and answers lost with the process that computed it."""
    started = time.process_time()
    pairs = [("1", "9^{9^{9^{9}}}"), (r"\frac12", "0.5"), ("1", r"\sum_{n=1}^{10^{12}} n^n"), ("6", r"6.0")]
    assert equal_answers(pairs, cpu_seconds=1.0) == [False, True, False, True]
    assert time.process_time() - started < 5  # of our own process
