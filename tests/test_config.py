"""Recipes: every mistake is reported, all at once; overrides change what they name and nothing else."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from transformers.integrations import integration_utils

from ultrafuser import schema
from ultrafuser.config import load_recipe
from ultrafuser.errors import UserError
from ultrafuser.refused import refused
from ultrafuser.run.settings import train_settings
from ultrafuser.synth.recipe import SynthRecipe
from ultrafuser.train.stage import Stage, TrainSettings

LONG = "x" * 300  # no name of a file can be so long
GOOD = """
name: good
output: out
specialists:
  - {name: text, path: owner/text}
  - {name: code, path: owner/code}
data: {train: [owner/data], domains: [text, code]}
"""
SCRATCH = """
name: scratch
output: out
specialists: [{name: text}, {name: code}]
world: {train_per_domain: 10}
data: {domains: [text, code]}
pretrain:
  geometry: {hidden_size: 16, intermediate_size: 16, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 1}
  base: {steps: 1, per_domain: 1}
  specialist: {steps: 1, per_domain: 1}
"""


def load(folder: Path, text: str, *overrides: str) -> schema.Recipe:
    file = folder / "recipe.yaml"
    file.write_text(text, encoding="utf-8")
    return load_recipe(file, overrides)


def mistakes(folder: Path, text: str, *overrides: str) -> list[str]:
    """The mistakes told, one a line, without the file's name."""
    with pytest.raises(UserError) as caught:
        load(folder, text, *overrides)
    lines = str(caught.value).removeprefix(f"{folder / 'recipe.yaml'}: ").split("\n  ")
    assert len(lines) == 1 or lines.pop(0) == f"{len(lines)} mistakes"
    return lines


def test_settings_of_a_run(tmp_path: Path) -> None:
    """Catches a key of a recipe that training never hears of, and defaults that are not those of `ultrafuser.train`."""
    assert train_settings(load(tmp_path, GOOD)) == TrainSettings(keep_stages=True)
    changes = {"load_in": "8bit", "micro_batch_size": 3, "torch_compile": True, "report_to": ("none",), "save_every": 7}
    given = [f"train.{key}={json.dumps(value)}" for key, value in changes.items()]
    given += ["seed=4", "data.max_length=9", "train.stages=[{name: a, moves: gate, steps: 1, per_domain: 2}]"]
    recipe = load(tmp_path, GOOD, *given)
    assert train_settings(recipe) == TrainSettings(keep_stages=True, seed=4, max_length=9, **changes)  # type: ignore[arg-type]
    assert recipe.train.stages == (Stage("a", moves="gate", steps=1, per_domain=2),)


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    """Catches a kind of mistake that hides another: here is one of each, and each must be told once, with key and value."""
    text = """
name: bad name
outputt: out
seed: -1
specialists:
  - {name: text, path: ./nowhere, templat: chatml}
  - {name: text, path: owner/code}
data: {train: [a.jsonl, owner/data], heldout_share: 2, domains: [text, code]}
train:
  load_in: 4bit
  stages:
    - {name: a, moves: gates, steps: -3, per_domain: four}
    - {name: a, moves: all, steps: 3, per_domain: 4, learning_rate: 0}
evaluation: {max_new_tokens: '???'}
"""
    expected = {
        "override 'seed' is not of the form key.sub=value",
        "override 'train.stages.2.steps=1': '2' is not a place in a list of 2, counted from 0",
        "name='bad name': must be letters, digits, '-', '_' and '.' only",
        "output: is missing",
        "outputt: unknown key; did you mean 'output'?",
        "seed=-1: must be at least 0",
        "specialists.0.templat: unknown key; did you mean 'template'?",
        "specialists.0.path: './nowhere': no such directory",
        "specialists.1.name: 'text' is the name of another specialist too; rename one",
        "data.train.0: 'a.jsonl': no such file",
        "data.heldout_share=2: must be below 1",
        "train.stages.0.moves='gates': must be 'gate', 'lora' or 'all'; did you mean 'gate'?",
        "train.stages.0.steps=-3: must be at least 0",
        "train.stages.0.per_domain='four': must be a whole number",
        "train.stages.1.name: 'a' is the name of another stage too; rename one",
        "train.stages.1.learning_rate=0: must be above 0",
        "train.stages.1.moves: 'all' cannot be with load_in=4bit, which freezes the specialists; choose one of the two",
        "evaluation.max_new_tokens: must be given, as in evaluation.max_new_tokens=VALUE",
    }
    told = mistakes(tmp_path, text, "seed", "train.stages.2.steps=1")
    assert set(told) == expected and len(told) == len(expected)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("specialists=[{name: text, path: o/t}]", "specialists=[{'name': 'text', 'path': 'o/t'}]: must have at least 2"),
        (f"specialists=[{', '.join(f'{{name: s{i}, path: o/t}}' for i in range(9))}]", "specialists=["),
        ("specialists.0.path=null", "specialists.0.path: is missing"),
        ("specialists.0.domains=[text]", "specialists.0.domains: is only for specialists that a section 'pretrain' trains"),
        ("fuse.template=alpacca", "fuse.template: 'alpacca' is neither one of alpaca, "),
        ("specialists.1.template=none.jinja", "specialists.1.template: 'none.jinja' is neither one of alpaca, "),
        ("data.train=[]", "data.train: is missing: files or hub datasets to train on"),
        ("data.directory=nowhere", "data.directory: 'nowhere': no such directory"),
        ("data.directory=~nosuchuser/a", "data.directory: '~nosuchuser/a': no such directory"),
        (f"data.directory={LONG}", f"data.directory: '{LONG}': no such directory"),
        ("data.train.0=~nosuchuser/a.jsonl", "data.train.0: '~nosuchuser/a.jsonl': no such file"),
        (f"data.train.0={LONG}.jsonl", f"data.train.0: '{LONG}.jsonl': no such file"),
        ("specialists.0.path=~nosuchuser/a", "specialists.0.path: '~nosuchuser/a': no such directory"),
        (f"specialists.0.path=./{LONG}", f"specialists.0.path: './{LONG}': no such directory"),
        (f"fuse.template={LONG}", f"fuse.template: '{LONG}' is neither one of alpaca, "),
        ("train.stages.².steps=1", "override 'train.stages.².steps=1': '²' is not a place in a list of 2, counted from 0"),
        (f"train.stages.{'1' * 5000}.steps=1", f"override 'train.stages.{'1' * 5000}.steps=1': '111"),
        ("data.domains=[text, text]", "data.domains: text, text: one stands there twice"),
        ("world.train_per_domain=3", "world: "),
        ("train.stages=[]", "train.stages=[]: must have at least 1"),
        ("train.stages=[{name: a, moves: gate, per_domain: 1}]", "train.stages.0.steps: is missing"),
        ("train.stages.0.learning_rate=.nan", "train.stages.0.learning_rate=nan: must be"),
        ("train.stages.1.warmup_steps=5001", "train.stages.1.warmup_steps: 5001 is more than steps=5000; lower it"),
        ("train=5", "train=5: must be keys with their values"),
        ("seed=yes", "seed=True: must be a whole number"),  # to YAML 1.1 it is true, to Python true is 1
        ("train.stages.0.steps=true", "train.stages.0.steps=True: must be a whole number"),
        ("train.stages.0.learning_rate=on", "train.stages.0.learning_rate=True: must be a number"),
        ("data.heldout_share=no", "data.heldout_share=False: must be a number"),
        (
            "train.stages.0.steps=0 train.stages.1.steps=0",
            "train.stages: nothing to train: 0 steps in stage gate and stage joint",
        ),
        ("train.report_to=[none,all]", "train.report_to: 'none' stands alone; drop it or the others"),
        ("train.stages.0.steps=99999999999999999999", "train.stages.0.steps=99999999999999999999: must be at most 1000000000"),
        ("train.report_to=[wandbb]", "train.report_to: 'wandbb' is not one of azure_ml, "),
        (
            "name=&a [*a]",
            "name=&a [*a]: is not valid YAML (nested too deeply, or an alias stands in what it stands for); quote it",
        ),
        ("name=2024-13-01", "name=2024-13-01: is not valid YAML (a value is not what it looks like: month must be in"),
        (r'name="\ud800"', r"name='\ud800': must be text"),
        ("name.first=x", "override 'name.first=x': there is no 'first' in 'good'"),
        ("data.train=[", "data.train=[: is not valid YAML (line 1, column 2: expected the node content, but found"),
        ("output=''", "output='': must have a length of at least 1"),
        ("data.train=['']", "data.train.0='': must have a length of at least 1"),
        ("data.directory=''", "data.directory='': must have a length of at least 1"),
        ("specialists.0.path=''", "specialists.0.path='': must have a length of at least 1"),
    ],
)
def test_one_mistake(tmp_path: Path, override: str, told: str) -> None:
    """Catches a check that is missing or says something else: each of these is exactly one mistake of a good recipe."""
    lines = mistakes(tmp_path, GOOD, *(override.split() if override.count("=") > 1 else [override]))
    if override.startswith("world"):  # a world contradicts the data and needs specialists from scratch
        assert [line.split(":")[0] for line in lines] == ["data", "world"]
    else:
        assert len(lines) == 1 and lines[0].startswith(told)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("specialists.0.path=owner/text", "specialists.0.path: 'owner/text' cannot be with a section 'pretrain'"),
        ("specialists.0.domains=[texts]", "specialists.0.domains: 'texts' is not one of data.domains (text, code); did you"),
        ("pretrain.vocab_size=4096", "pretrain.vocab_size: 4096 cannot be with a section 'world'"),
        ("pretrain.geometry.hidden_size=18", "pretrain.geometry.hidden_size: 18 must be a multiple of twice num"),
        ("pretrain.geometry.num_attention_heads=0", "pretrain.geometry.num_attention_heads=0: must be at least 1"),
        ("pretrain.base.steps=???", "pretrain.base.steps: must be given, as in pretrain.base.steps=VALUE"),
        ("data.domains=???", "data.domains: must be given, as in data.domains=[VALUE,..]"),
        ("pretrain.specialist.warmup_steps=2", "pretrain.specialist.warmup_steps: 2 is more than steps=1; lower it"),
        ("data.domains=[text, code, mean]", "data.domains: 'mean' is the name of another column in the"),
        ("data.domains=[text, code, mixed]", "data.domains: 'mixed' is the name of another column in the"),
        ("specialists.0={name: base, domains: text}", "specialists.0.name: 'base' is the name of the common base in the"),
        ("specialists.0={name: Code, domains: text}", "specialists.1.name: 'code' is the name of another specialist too"),
    ],
)
def test_one_mistake_from_scratch(tmp_path: Path, override: str, told: str) -> None:
    """As above, for a recipe that trains its specialists; a refused number must not bring contradictions with its stand-in."""
    lines = mistakes(tmp_path, SCRATCH, override)
    assert len(lines) == 1 and lines[0].startswith(told)


@pytest.mark.parametrize("key", ["output", "world", "specialists"])
def test_a_value_that_cannot_be_read_is_one_mistake(tmp_path: Path, key: str) -> None:
    """Catches a second, untrue mistake: that nothing is given there, or what would contradict an empty section."""
    lines = mistakes(tmp_path, GOOD.replace("output: out", "output: '???'"), "output=out", f"{key}=&a [*a]")
    assert len(lines) == 1 and lines[0].startswith(f"{key}=&a [*a]: is not valid YAML (nested too deeply, or an alias ")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        # each with a contradiction between other fields, and with what the stand-in must not be blamed for
        ({"specialists": "[{name: text, path: owner/text}]"}, {"specialists=["}),  # a list that has no part to take out
        ({"specialists.1": "code"}, {"specialists.1='code'"}),
        ({"specialists.1.name": "null"}, {"specialists.1.name=None"}),
        ({"fuse": "5"}, {"fuse=5"}),
        ({"train.stages.0.moves": "gates"}, {"train.stages.0.moves='gates'"}),
        ({"data.domains": "5"}, {"data.domains=5"}),
        ({"output": "null", "seed": "-1"}, {"output=None", "seed=-1"}),
    ],
)
def test_no_mistake_hides_another(tmp_path: Path, changes: dict[str, str], told: set[str]) -> None:
    """Catches contradictions that are told only when what the schema refuses has been mended, wherever that is."""
    others = {"train.load_in=4bit", "train.stages.1.moves=all", "data.heldout=[o/d]", "data.heldout_share=0.5"}
    lines = mistakes(tmp_path, GOOD, *others, *(f"{key}={value}" for key, value in changes.items()))
    expected = {"train.stages.1.moves: 'all' cannot be with load_in=4bit", "data.heldout_share: 0.5 cannot be with", *told}
    assert len(lines) == len(expected) and all(any(line.startswith(start) for line in lines) for start in expected), lines


# Every section that there is, in both kinds of recipes.
WHOLE = yaml.safe_load(SCRATCH) | {
    "train": {"stages": [{"name": "a", "moves": "gate", "steps": 1, "per_domain": 1}], "load_in": "4bit", "report_to": ["wandb"]},
    "evaluation": {"heldout_per_domain": 3},
    "fuse": {"dtype": "float32", "template": "chatml"},
}
WHOLE_SYNTHESIS = {
    "name": "s",
    "output": "out",
    "models": {"m": {"endpoints": [{"base_url": "http://h/v1", "model": "m", "api_key_env": "K"}], "top_p": 1.0}},
    "steps": {"turns": {"model": "m", "temperature": 1.0, "top_p": 0.5, "max_tokens": 3}},
    "domains": {
        "d": {
            **{"description": "About d.", "meta_topics": 1, "sub_topics": 1, "instructions": 1, "prompts": "p"},
            **{"traits": {"language": {"Python": 1.0}}, "check": {"by": "agreement"}, "rules": {"names": ["loop"]}},
        }
    },
    "score": {"minimum": 3},
    "decontaminate": {"test_sets": ["gsm8k"], "data_dir": "x"},
    "budget": 1.0,
}
NUMBERS = [5, -1, 1.5, 0.0, float("nan"), float("inf"), 10**400, 10**19, True]
TEXTS = ["", "x", "a b/c", "5", "1" * 5000, b"x", datetime.date(2020, 1, 2)]
WRONG = [None, *NUMBERS, *TEXTS, [], [None], ["x"] * 9, {}, {"a": 1}, {1: 2}, {None: None}, {"a b/c": {}}, {"a": {1: 1}}, {"x"}]


def everywhere(node: Any) -> Iterator[Any]:
    """Copies of ``node``, each with one of `WRONG` in one place."""
    yield from WRONG
    for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, tuple | list) else ():
        for other in everywhere(node[key]):
            changed = dict(node) if isinstance(node, dict) else list(node)
            changed[key] = other
            yield changed


@pytest.mark.parametrize(("kind", "whole"), [(schema.Recipe, WHOLE), (SynthRecipe, WHOLE_SYNTHESIS)])
def test_mistakes_are_told_in_plain_words(kind: type[schema.WholeRecipe], whole: dict[str, Any]) -> None:
    """Catches pydantic's own words, a mistake without a text or a traceback, for many wrong values in every place of a recipe."""
    kinds, every = set(), kind.model_validate(whole).model_dump()
    for raw in filter(lambda raw: isinstance(raw, dict), everywhere(every)):  # nothing else is taken for a recipe
        try:
            kind.model_validate(raw)
        except ValidationError as error:
            told = refused(kind, error)
            assert told
            kinds |= {details["type"] for details in error.errors()}
            for text in told.values():
                said = text.partition(": ")[2].lower()
                assert said and not any(word in said for word in ("should", "valid", "pydantic", "type=", "input", "unable"))
    assert len(kinds) > 20, kinds


def test_two_contradictions_of_one_key(tmp_path: Path) -> None:
    """Catches the second of two mistakes at one place, here two unknown domains of a specialist."""
    lines = mistakes(tmp_path, SCRATCH, "specialists.0.domains=[tex, cod]")
    assert [line.split("'")[1] for line in lines] == ["tex", "cod"]


def test_parts_of_what_is_missing(tmp_path: Path) -> None:
    """Catches a section without a simple stand-in: its own parts are unknown, the rest must be judged all the same."""
    lines = mistakes(tmp_path, SCRATCH, "pretrain.geometry=null", "pretrain.vocab_size=4096", "specialists.0.path=o/t")
    assert sorted(line.split(":")[0].split("=")[0] for line in lines) == [
        "pretrain.geometry",
        "pretrain.vocab_size",
        "specialists.0.path",
    ]


def test_overrides(tmp_path: Path) -> None:
    """Catches overrides that are dropped, taken as text, or that change a neighbour: the rest must stay as it was."""
    plain = load(tmp_path, GOOD).model_dump()
    changed = load(
        tmp_path,
        GOOD,
        "train.stages.1.steps=7",  # a default that the file does not name
        "train.stages.0.learning_rate=1e-3",  # a string to YAML 1.1
        "fuse.dtype=bfloat16",
        "data.train=other/data",  # one for a list
        "description='a=b: c'",
    ).model_dump()
    plain["train"]["stages"][1]["steps"] = 7
    plain["train"]["stages"][0]["learning_rate"] = 1e-3
    plain["fuse"]["dtype"] = "bfloat16"
    plain["data"]["train"] = ("other/data",)
    plain["description"] = "a=b: c"
    assert changed == plain


def test_a_recipe_is_json(tmp_path: Path) -> None:
    """Catches values that do not survive in a provenance file: what is read back must be the same recipe."""
    recipe = load(tmp_path, SCRATCH)
    assert schema.Recipe.model_validate(json.loads(json.dumps(recipe.model_dump(mode="json")))) == recipe


def test_data_paths(tmp_path: Path) -> None:
    """Catches a file that is looked for elsewhere than below data.directory, and a hub id or whole path put below it."""
    (tmp_path / "a.jsonl").touch()
    whole = tmp_path / "a.jsonl"
    data = load(tmp_path, GOOD, f"data.directory={tmp_path}", f"data.train=[a.jsonl, {whole}, owner/data]").data
    assert data.paths(data.train) == [str(whole), str(whole), "owner/data"]


def test_trackers_that_are_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a run that finds out after tokenising that it cannot report, and a tracker refused that is there."""
    monkeypatch.setattr(integration_utils, "get_available_reporting_integrations", lambda: ["wandb"])
    lines = mistakes(tmp_path, GOOD, "train.report_to=[wandb, tensorboard, trakio]")
    assert [line.split("'")[1] for line in lines] == ["tensorboard", "trakio"]
    assert lines[0].endswith("is not installed (installed are: wandb); install it or leave it out")
    assert lines[1].endswith("; did you mean 'trackio'?")
    for known in ("wandb", "all", "none"):
        assert load(tmp_path, GOOD, f"train.report_to={known}").train.report_to == (known,)


LAUGHS = "\n".join(f"l{n + 1}: &l{n + 1} [{', '.join([f'*l{n}'] * 10)}]" for n in range(30))  # 10**30 values


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: [", "not valid YAML"),
        ("a: &a [*a]", "not valid YAML (nested too deeply, or an alias stands in what it stands for)"),
        ("a: &a {b: [*a]}", "not valid YAML (nested too deeply, or an alias stands in what it stands for)"),
        ("a: " + "[" * 5000, "not valid YAML (nested too deeply, or"),
        (f"l0: &l0 [x]\n{LAUGHS}", "not valid YAML (with its aliases written out it holds more than 100,000 values)"),
        ("seed: 2024-13-01", "not valid YAML (a value is not what it looks like: month must be in 1..12)"),
        ("seed: !!bool maybe", "not valid YAML (a value is not what it looks like: 'maybe')"),
        ("seed: !!timestamp maybe", "not valid YAML (a value is not what it looks like: "),
        ("a: &a {b: 1}\nc: {<<: *a, b: 2}\nd: [*a, *a]", "mistakes\n  name: is missing"),  # ordinary aliases are fine
        ("name: x\ntrain:\n  seed: 1\ntrain: {}\n", "not valid YAML ('train' stands twice in one section, first in line 2)"),
        ("yes: x\ntrue: x\n", "not valid YAML ('true' stands twice in one section, first in line 1)"),  # alike to Python
        ("1: x\n'1': x\n", "\n  1: unknown key\n  1: unknown key\n"),  # not alike
        ("name: {a: ]", "not valid YAML (line 1, column 11: "),
        ("", "must hold keys such as 'name' and 'output', but holds None"),
        ("- a", "must hold keys such as 'name' and 'output', but holds ['a']"),
        ("name: x", "3 mistakes\n  output: is missing\n  specialists: is missing\n  data.train: is missing"),
    ],
)
def test_files_that_are_no_recipes(tmp_path: Path, text: str, told: str) -> None:
    """Catches a traceback for a file of another kind."""
    with pytest.raises(UserError, match=r"recipe\.yaml: ") as caught:
        load(tmp_path, text)
    assert told in str(caught.value)


def test_no_such_recipe(tmp_path: Path) -> None:
    """Catches a missing file without a hint: a shipped recipe's name and a file in the same directory are both known."""
    with pytest.raises(UserError, match="miniwrold: no such recipe; did you mean 'miniworld'"):
        load_recipe("miniwrold")
    (tmp_path / "mine.yaml").touch()
    with pytest.raises(UserError, match=r"no such recipe; did you mean 'mine\.yaml'"):
        load_recipe(tmp_path / "mien.yaml")
