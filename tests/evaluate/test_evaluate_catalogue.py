"""The table of tasks agrees with the definitions, the test sets and the paper's columns."""

from __future__ import annotations

import pytest

from ultrafuser.evaluate.catalogue import TASKS
from ultrafuser.evaluate.paper import PAPER
from ultrafuser.evaluate.tasks import TASKS_DIRECTORY
from ultrafuser.miniworld.world import generate
from ultrafuser.testsets import TEST_SETS

HARNESS = [task for task in TASKS.values() if task.kind == "harness"]


def test_every_task_has_its_definition_and_every_definition_its_task() -> None:
    """Catches a task that cannot be run, one that cannot be named, and a name that could hide one of the harness's own."""
    assert {task.name for task in HARNESS} == {path.stem for path in TASKS_DIRECTORY.glob("*.yaml")}
    assert all(task.harness_name.startswith("ultrafuser_") for task in HARNESS)
    assert all(name == task.name for name, task in TASKS.items())


def test_chain_of_thought_variants() -> None:
    """Catches a variant that is promised and missing, or that is there and not promised."""
    promised = {f"{task.name}_cot" for task in TASKS.values() if task.has_cot}
    assert promised == {name for name in TASKS if name.endswith("_cot")}
    assert {"gsm8k_cot", "math_cot", "sat_math_cot", "aqua_cot", "humaneval_cot", "mbpp_cot", "truthfulqa_cot"} == promised


def test_metrics_and_prompts_of_the_definitions() -> None:
    """Catches a score looked up under a name that the definition does not report, and a variant that asks something else."""
    yaml_loader = pytest.importorskip("lm_eval.tasks._yaml_loader")
    loaded = {task.name: yaml_loader.load_yaml(TASKS_DIRECTORY / f"{task.name}.yaml", resolve_func=False) for task in HARNESS}
    for task in HARNESS:
        definition = loaded[task.name]
        assert definition["task"] == task.harness_name
        assert definition["dataset_kwargs"] == {"test_set": task.test_set}
        assert task.metric == definition["metric_list"][0]["metric"]
        assert definition["num_fewshot"] == 0
        if task.has_cot:
            plain, cot = definition["doc_to_text"], loaded[f"{task.name}_cot"]["doc_to_text"]
            assert cot == plain + "\n\nLet's think step by step."
        if definition["output_type"] == "generate_until":
            assert definition["generation_kwargs"]["until"] == []


def test_tasks_that_run_programs() -> None:
    """Catches a task whose answers are found not to be judged only after they were asked for, or one refused for nothing."""
    yaml_loader = pytest.importorskip("lm_eval.tasks._yaml_loader")
    for task in HARNESS:
        definition = str(yaml_loader.load_yaml(TASKS_DIRECTORY / f"{task.name}.yaml", resolve_func=False))
        assert (task.programs == "full") == (".programs'" in definition), task.name
    for task in (task for task in TASKS.values() if task.kind == "miniworld"):
        items = generate(task.name.removeprefix("miniworld_"), 50, 0, "test")
        runs = any(part.domain == "code" for item in items for part in item.parts)
        assert task.programs == ("restricted" if runs else None), task.name


def test_test_sets_and_columns_exist() -> None:
    """Catches a task without data, and a column of the paper that nothing would ever be set beside."""
    assert all(task.test_set in TEST_SETS for task in TASKS.values() if task.kind != "miniworld")
    assert {column for row in PAPER.values() for column in row} == {task.paper_column for task in TASKS.values()} - {None}


def test_extraction_rules_are_single_sentences() -> None:
    """Catches a rule that is empty or too long to stand next to a score."""
    for task in TASKS.values():
        assert task.extraction.endswith(".")
        assert 20 < len(task.extraction) < 200
        assert "\n" not in task.extraction
