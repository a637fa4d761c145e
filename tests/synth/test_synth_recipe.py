"""Synthesis recipes: every mistake is one clear line before anything is asked; what may change underway, and what may not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from synth_world import domains, make_recipe

from ultrafuser.config import read_recipe, shipped_recipes
from ultrafuser.errors import UserError
from ultrafuser.synth.prompts import VARIABLES, Prompts
from ultrafuser.synth.recipe import SynthRecipe

WORLD = {"meta_topics": 1, "sub_topics": 1, "instructions": 1}


def mistakes(folder: Path, **changes: Any) -> list[str]:
    """The mistakes told of a recipe, one a line."""
    with pytest.raises(UserError) as caught:
        make_recipe(folder / "out", **changes)
    return str(caught.value).removeprefix(f"{folder / 'out.yaml'}: ").split("\n  ")


def test_shipped_recipe_has_the_papers_numbers() -> None:
    """Catches a wrong number of topics or instructions, or one that is not a synthesis recipe in the folder of those."""
    recipe = read_recipe(SynthRecipe, "ultrachat2")
    counts = {name: (domain.meta_topics, domain.sub_topics, domain.instructions) for name, domain in recipe.domains.items()}
    assert counts == {"text": (30, 1100, 100_000), "code": (21, 407, 100_000), "math": (21, 80, 110_000)}
    assert sum(count[0] for count in counts.values()) == 72 and sum(count[1] for count in counts.values()) == 1587
    assert recipe.complicated == 0.3 and recipe.decontaminate
    assert {read_recipe(SynthRecipe, name).name for name in shipped_recipes(SynthRecipe)} == {"ultrachat2", "ultrachat2-small"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"domains": {"maths": WORLD}}, "domains.maths.description: is missing"),
        (
            {"domains": {"code": WORLD | {"rules": {"names": ["refusl"]}}}},
            "rule 'refusl' is not",
        ),
        ({"domains": {"code": WORLD | {"meta_topics": 2}}}, "domains.code.sub_topics: 1 cannot fill meta_topics=2"),
        (
            {"domains": {"code": WORLD | {"sub_topics": 9, "instructions": 8}}},
            "code.instructions: 8 cannot fill sub_topics=9",
        ),
        ({"domains": {"code": WORLD | {"instructions": 0}}}, "domains.code.instructions=0: must be at least 1"),
        (
            {"domains": {"code": WORLD | {"instrutions": 3}}},
            "code.instrutions: unknown key; did you mean 'instructions'?",
        ),
        ({"domains": {"a/b": WORLD}}, "must be letters"),
        (
            {"steps": {"responses": {"model": "wirter"}}},
            "'wirter' is not one of writer; did you mean 'writer'?",
        ),
        ({"related": {"strong": 0.7, "weak": 0.3}}, "related: strong and weak are 1 together and leave no seeds"),
        ({"decontaminate": {"test_sets": ["gsm9k"]}}, "decontaminate.test_sets.0: 'gsm9k' is not one of"),
        ({"prompts": "nowhere"}, "prompts: 'nowhere': no such directory"),
        ({"budget": 5}, "budget: 5 cannot be kept: nothing is counted for writer; give price_input"),
    ],
)
def test_mistakes(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    """Catches a mistake that is told unclearly, or found only when requests have been paid for."""
    assert any(told in line for line in mistakes(tmp_path, **changes)), mistakes(tmp_path, **changes)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"models": {"writer": {"endpoints": [{"base_url": "localhost", "model": "m"}]}}}, "models.writer.endpoints.0.base_url:"),
        ({"models": None}, "models=None"),
        ({"name": None}, "name=None"),
        ({"related": {"strong": 2, "weak": 0.7}}, "related.strong=2"),  # and not that the two are too much
        ({"score": {"minimum": 11}}, "score.minimum=11"),
        ({"turns": 3}, "turns=3"),
        ({"prompts": "nowhere"}, "prompts: 'nowhere'"),
    ],
)
def test_no_mistake_hides_another(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    """Catches mistakes of several fields, and of templates, that show only when those of single fields have been mended."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "score.jinja").write_text("{{ one }}{{ two }}{% include 'broken.jinja' %}{% include 'none.jinja' %}")
    (tmp_path / "own" / "broken.jinja").write_text("{{")
    own = {"code": WORLD | {"meta_topics": 2, "prompts": str(tmp_path / "own")}, "math": WORLD | {"instructions": 0}}
    others = [
        "domains.math.instructions=0: ",
        "domains.code.sub_topics: 1 cannot fill meta_topics=2",
        "steps.turns.model: 'x' is not one of ",
        *(f"prompts.score: {tmp_path}/own/score.jinja: it gets no '{name}'" for name in ("one", "two")),
        f"prompts.score: {tmp_path}/own/score.jinja: there is no template 'none.jinja'",
        f"prompts.score: {tmp_path}/own/broken.jinja: line 1: ",
    ]
    if "models" in changes and changes["models"] is None:
        others.remove("steps.turns.model: 'x' is not one of ")  # nobody knows
    lines = mistakes(tmp_path, **{"domains": own, "steps": {"turns": {"model": "x"}}} | changes)
    expected = {f"{len(others) + 1} mistakes", *others, told}
    assert len(lines) == len(expected) and all(any(line.startswith(start) for line in lines) for start in expected), lines


def test_all_unknown_rules_are_told(tmp_path: Path) -> None:
    """Catches the second misspelt rule of a domain, found only when the first is mended."""
    (line,) = mistakes(tmp_path, domains={"code": WORLD | {"rules": {"names": ["refusl", "loop", "lop"]}}})
    assert "'refusl'" in line and "'lop'" in line and "'loop' is not" not in line


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("response.jinja", "Answer about {{ descripton }}.", "it gets no 'descripton'; did you mean 'description'?"),
        ("sub_topics.jinja", "{% if have %}{{ topic.nmae }}{% endif %}", "no attribute 'nmae'"),
        ("sub_topics.jinja", "{% if not have %}{{ topic.nmae }}{% endif %}", "no attribute 'nmae'"),
        ("complicate.jinja", "{{ instruction", "line 1: "),
        ("complicate.jinja", "{% include 'none.jinja' %}", "there is no template 'none.jinja'"),
        ("more_complex.jinja", "{{ nothing }}", "it gets no 'nothing'"),
        ("response.jinja", "{{ ''.__class__.__mro__ }}", "unsafe"),
    ],
)
def test_broken_templates(tmp_path: Path, name: str, text: str, told: str) -> None:
    """Catches a template that fails only in the middle of a run, also in a branch seldom taken, and one that reaches out."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / name).write_text(text)
    lines = mistakes(tmp_path, prompts=str(tmp_path / "own"))
    assert len(lines) == 1 and f"{tmp_path / 'own' / name}: " in lines[0] and told in lines[0], lines


def test_own_templates_take_the_place_of_shipped_ones(tmp_path: Path) -> None:
    """Catches a wrong order of the places where templates are looked for, and a hash that misses a template that is included."""
    before = Prompts(make_recipe(tmp_path / "out"))
    for place, text in (("all/good_response", "- ALL"), ("all/code/good_response", "- CODE"), ("math/good_response", "- MATH")):
        file = tmp_path / f"{place}.jinja"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    own = domains(1, 1, 1)
    own["math"]["prompts"] = str(tmp_path / "math")
    prompts = Prompts(make_recipe(tmp_path / "out", prompts=str(tmp_path / "all"), domains=own))
    ends = [prompts.render("response", name).rpartition("- ")[2] for name in ("text", "code", "math")]
    assert ends == ["ALL", "CODE", "MATH"]  # the shipped `text/good_response` stands behind the recipe's own for all
    for name in own:
        changed = {template for template in VARIABLES if prompts.hash(template, name) != before.hash(template, name)}
        assert changed == {"response"}


def test_new_domain_needs_no_template_of_its_own(tmp_path: Path) -> None:
    """Catches shared templates that lean on what only the shipped domains have."""
    recipe = make_recipe(tmp_path / "out", domains={"law": WORLD | {"description": "Law and courts."}})
    prompts = Prompts(recipe)
    texts = [prompts.render(name, "law", **values) for name, values in VARIABLES.items()]
    assert all("Law and courts." in text for name, text in zip(VARIABLES, texts, strict=True) if name != "response")


def test_identity(tmp_path: Path) -> None:
    """Catches a recipe that can be changed so that half of its data comes of other prompts, or that cannot get more budget."""
    own = domains(2, 4, 20)
    recipe = make_recipe(tmp_path / "out")
    priced = {"writer": {"endpoints": [{"base_url": "http://localhost/v1", "model": "fake", "price_output": 1}]}}
    same = [
        {"budget": 3, "models": priced},
        {"concurrency": 1},
        {"max_rounds": 3},
        {"domains": domains(3, 9, 99)},
        {"engine": "ray"},
    ]
    other = [{"seed": 1}, {"name": "x"}, {"complicated": 0.5}, {"steps": {"responses": {"temperature": 0}}}, {"per_request": 5}]
    own["code"]["traits"] = {"language": {"Rust": 1}}
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "good_instruction.jinja").write_text("- is good")
    other += [{"domains": own}, {"prompts": str(tmp_path / "own")}]
    assert {make_recipe(tmp_path / "out", **changes).identity for changes in same} == {recipe.identity}
    assert len({recipe.identity, *(make_recipe(tmp_path / "out", **changes).identity for changes in other)}) == len(other) + 1


def test_plans_do_not_hide_what_has_to_be_known(tmp_path: Path) -> None:
    """Catches code instructions that may not say in which language, because the plan's traits are not to be named."""
    prompts = Prompts(make_recipe(tmp_path / "out"))
    text = prompts.render("instructions", "code", **VARIABLES["instructions"])
    assert "names the programming language" in text and "such as the programming language" in text
    assert "Never name the traits" not in text
