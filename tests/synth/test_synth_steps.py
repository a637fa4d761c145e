"""What a step asks and reads: lists cut off, LaTeX in JSON, topics that repeat, lines of a plan, turns that go wrong."""

from __future__ import annotations

import json
import random
from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from synth_world import Scripted, Writer, domains, make_recipe, tables
from synth_world import run as run_recipe

from ultrafuser.endpoints.request import ChatAnswer
from ultrafuser.endpoints.store import AnswerStore
from ultrafuser.errors import UserError
from ultrafuser.sandbox import levels
from ultrafuser.synth.ask import read_list, read_text
from ultrafuser.synth.pipeline import synthesise
from ultrafuser.synth.prompts import VARIABLES, Prompts
from ultrafuser.synth.record import Item
from ultrafuser.synth.state import State
from ultrafuser.synth.steps import complicate, instructions, score, topics, turns

SCHEMAS = {"meta_topics": topics, "sub_topics": topics, "complicate": complicate, "score": score, "user_turn": turns}
SCHEMAS |= dict.fromkeys(("instructions", "related_strong", "related_weak"), instructions)


def answer(text: str) -> ChatAnswer:
    return ChatAnswer("key", text, "stop")


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ('{"topics": ["a", "b"]}', ["a", "b"]),
        ('Sure [as asked]:\n```json\n{"topics": ["a", "b"]}\n```\nWant {more}?', ["a", "b"]),
        ('["a", "b"]', ["a", "b"]),
        ('{"names": ["a", "b"]}', ["a", "b"]),
        ('{"topics": ["a", "b", "only the begin', ["a", "b"]),
        ('{"topics": [{"name": "a"}, {"name": "b', [{"name": "a"}]),
    ],
)
def test_lists(text: str, entries: list[Any]) -> None:
    """Catches prose that is taken for the list, and the last entry of a list that was cut off, which is half a sentence."""
    assert read_list(answer(text), "topics") == entries


@pytest.mark.parametrize("text", ["", "I cannot do that.", '{"topics": []}', '{"topics": ["only the begin', '{"topics": "a"}'])
def test_no_lists(text: str) -> None:
    """Catches an answer without a list that counts as one with nothing in it, and so is not asked for again."""
    with pytest.raises(ValueError):
        read_list(answer(text), "topics")


@pytest.mark.parametrize(
    ("text", "read"),
    [
        (r'{"instruction": "Is $\\frac{1}{2} \\times x \\neq 3$?"}', r"Is $\frac{1}{2} \times x \neq 3$?"),
        (
            r'{"instruction": "Is $\frac{1}{2} \times x \neq \sqrt{3}$?\nSay \"yes\"."}',
            'Is $\\frac{1}{2} \\times x \\neq \\sqrt{3}$?\nSay "yes".',
        ),
        (r'Of \frac{1}{2}: {"reasoning": "$\frac{1}{2}$, so {2}.", "instruction": "Is it $2$?"}', "Is it $2$?"),
        ('{"instruction": "Explain:\n```python\nx = {}\n```"} Done.', "Explain:\n```python\nx = {}\n```"),
    ],
)
def test_texts(text: str, read: str) -> None:
    """Catches LaTeX that becomes tabs and form feeds, and a code fence inside a string that is taken for one around the JSON."""
    assert read_text(answer(text), complicate.SCHEMA, "instruction") == read


@pytest.mark.parametrize(
    "text", ['{"instruction": "Half of', '{"instruction": " "}', '{"instruction": 3}', '["Explain."]', "Explain."]
)
def test_no_texts(text: str) -> None:
    """Catches half an instruction that is taken for a whole one."""
    with pytest.raises(ValueError):
        read_text(answer(text), complicate.SCHEMA, "instruction")


@pytest.mark.parametrize("template", sorted(SCHEMAS))
def test_prompts_ask_for_what_the_schema_has_room_for(tmp_path: Path, template: str) -> None:
    """Catches a prompt that asks for thoughts, or anything else, that structured output would not let through."""
    prompts, schema = Prompts(make_recipe(tmp_path / "out")), SCHEMAS[template].SCHEMA
    for domain in ("text", "code", "math"):
        *_, form = prompts.render(template, domain, **VARIABLES[template]).splitlines()
        asked = json.loads(form)
        while schema["properties"].keys() & {"topics", "instructions"}:
            (name,) = schema["properties"]
            schema = schema["properties"][name]["items"]
        (asked,) = next(iter(asked.values())) if isinstance(next(iter(asked.values())), list) else [asked]
        assert list(asked) == list(schema["properties"]) == schema["required"]
        text = prompts.render(template, domain, **VARIABLES[template])
        assert ("worked out" in text or "step by step" in text) == ("reasoning" in asked)


def test_what_a_reply_must_have_is_asked_for(tmp_path: Path) -> None:
    """Catches messages of the simulated user whose reply cannot have the one final answer that the domain's rules demand."""
    recipe = make_recipe(tmp_path / "out")
    prompts = Prompts(recipe)
    for domain, settings in recipe.domains.items():
        for template in ("instructions", "related_strong", "related_weak", "complicate", "user_turn"):
            text = prompts.render(template, domain, **VARIABLES[template])
            assert ("exactly one correct final answer" in text) == ("final_answer" in settings.rules.names), (domain, template)


class Tampered(Writer):
    """A `Writer` that writes nothing bad, but for one kind of answer: ``replaced`` turns body and answer into another answer."""

    def __init__(self, kind: str, replaced: Any) -> None:
        super().__init__(bad=0.0)
        self.kind, self.replaced = kind, replaced

    def __call__(self, body: dict[str, Any], n: int) -> str:
        text = super().__call__(body, n)
        properties = body.get("response_format", {}).get("json_schema", {}).get("schema", {}).get("properties", {"response": 0})
        return self.replaced(body, text) if self.kind in properties else text


def run(folder: Path, script: Any, **changes: Any) -> tuple[list[Item], Scripted, list[str], State]:
    """One domain, in this process."""
    recipe = make_recipe(folder / "out", **{"domains": {"code": domains(2, 4, 40)["code"]}} | changes)
    recipe.store.parent.mkdir(exist_ok=True)
    store, engine, lines = AnswerStore(recipe.store), Scripted(script), list[str]()
    state = synthesise(recipe, store, engine, log=lines.append)
    return list(state.items()), engine, lines, state


def test_topics_that_repeat_are_shown_and_replaced(tmp_path: Path) -> None:
    """Catches two sub-topics of one name, also under two meta-topics and in other spelling, and a round that does not say so."""

    def same(body: dict[str, Any], text: str) -> str:
        names = ["Web Pages", "web  page!"] if "Name 2 sub-topics" in str(body) else []
        return json.dumps({"topics": [{"name": name} for name in names]}) if names else text

    _, engine, _, state = run(tmp_path, Tampered("topics", same))
    topics = list(state.topics("sub_topic", active=False))
    assert Counter(topic.status for topic in topics) == {"active": 4, "dropped": 3}
    assert {topic.reason for topic in topics if topic.reason} == {"duplicate: of code/000/000"}
    again = [str(request.messages) for request in engine.asked if "further sub-topics" in str(request.messages)]
    assert len(again) == 2 and all("- Web Pages" in prompt or "- web  page!" in prompt for prompt in again)


def test_an_instruction_goes_to_the_line_it_names(tmp_path: Path) -> None:
    """Catches traits that are recorded of another instruction where a model leaves lines out or changes their order."""

    def shuffled(body: dict[str, Any], text: str) -> str:
        prompt = str(body["messages"][0]["content"])
        plan = [line.split(". ", 1) for line in prompt.splitlines() if line[:1].isdigit()]
        first = json.loads(text)["instructions"][0]["instruction"]
        entries = [{"line": int(line), "instruction": f"{first} {traits}"} for line, traits in plan]
        return json.dumps({"instructions": entries[::-1][: max(1, len(entries) - 1)]})

    items, *_ = run(tmp_path, Tampered("instructions", shuffled), complicated=0.0, duplicate_threshold=0.99)
    accepted = [item for item in items if item.status == "accepted"]
    assert len(accepted) == 40
    for item in accepted:
        assert item.instruction.endswith("; ".join(f"{name}: {value}" for name, value in item.traits.items()))


def test_kinds_and_their_examples(tmp_path: Path) -> None:
    """Catches related instructions asked for without seeds to show, in wrong numbers, or with seeds of another sub-topic."""
    items, engine, _, state = run(tmp_path, Writer(bad=0.0), complicated=0.0)
    for topic in state.topics("sub_topic"):
        own = [item for item in items if item.topic == topic.id]
        assert Counter(item.kind for item in own) == {"seed": 2, "strong": 4, "weak": 4}
    seeds: dict[str, set[str]] = {}
    for item in items:
        seeds.setdefault(item.topic, set()).update([item.instruction] if item.kind == "seed" else [])
    prompts = [str(request.messages[0]["content"]) for request in engine.asked]
    related = [prompt for prompt in prompts if "related to the examples" in prompt]
    assert len(related) == 8
    for prompt in related:
        shown = {line for line in prompt.split("Write ")[0].splitlines() if line.startswith("Explain ")}
        assert any(shown and shown <= texts for texts in seeds.values())


def test_complicated_sample(tmp_path: Path) -> None:
    """Catches a share that is missed, an original that is lost, and an item that is accepted unchanged when rewriting failed."""

    def half(body: dict[str, Any], text: str) -> str:
        return text if random.Random(str(body["messages"])).random() < 0.5 else "No."

    items, *_ = run(tmp_path, Tampered("instruction", half))
    accepted = [item for item in items if item.status == "accepted"]
    assert sum(item.original is not None for item in accepted) == 12
    assert all(item.instruction.startswith("Explain with care") == (item.original is not None) for item in accepted)
    lost = [item for item in items if item.step == "complicate"]
    assert lost and all(item.reason.startswith("no answer: unreadable answer: no JSON") for item in lost)


def test_a_bad_turn_ends_the_conversation_before_it(tmp_path: Path) -> None:
    """Catches a refusal left in a conversation, one that ends with the user, and a first turn lost with the second."""
    refusal = "I'm sorry, but I can't help with that."

    def second_refused(body: dict[str, Any], text: str) -> str:
        return refusal if len(body["messages"]) == 6 else text

    items, *_ = run(tmp_path, Tampered("response", second_refused), turns={"share": 0.5, "number": 3})
    assert Counter(len(item.turns) for item in items) == {2: 20, 4: 20}
    for item in items:
        assert [turn["role"] for turn in item.turns] == ["user", "assistant"] * (len(item.turns) // 2)
        assert refusal not in str(item.turns) and ("refusal" in str(item.provenance.get("ended"))) == (len(item.turns) == 4)


def test_what_cannot_be_filled_is_said(tmp_path: Path) -> None:
    """Catches a run that never ends, or ends silently, where a model has nothing new to say."""
    stuck = json.dumps({"instructions": [{"line": 1, "instruction": "Explain the very same thing to me."}]})
    items, _, lines, _ = run(tmp_path, Tampered("instructions", lambda body, text: stuck), max_rounds=3)
    assert sum(item.status == "accepted" for item in items) == 1
    short = [line for line in lines if "short of" in line]
    assert len(short) == 4 and all("after 3 rounds" in line for line in short)
    assert any("short of 9 of 10 instructions" in line for line in short)


def test_math_is_checked_by_agreement(tmp_path: Path) -> None:
    """Catches a response that the other samples contradict, and samples that come from the store because they ask the same."""

    def mostly_seven(body: dict[str, Any], text: str) -> str:
        return "It is so. The answer is 7." if random.Random(str(body)).random() < 0.8 else f"Hm. The answer is {body['seed']}."

    counts = domains(2, 4, 40)["math"] | {"check": {"by": "agreement", "samples": 6, "share": 0.5}}
    items, engine, *_ = run(tmp_path, Tampered("response", mostly_seven), domains={"math": counts}, turns={"share": 0.0})
    assert {item.response for item in items if item.status == "accepted"} == {"It is so. The answer is 7."}
    wrong = [item for item in items if item.step == "check"]
    assert len(wrong) >= 3 and all(item.reason.startswith("no agreement: ") for item in wrong)
    samples = [request for request in engine.asked if request.step == "check"]
    assert len({request.key for request in samples}) == len(samples) == 6 * len([item for item in items if item.response])


def test_python_is_checked_in_the_sandbox(tmp_path: Path) -> None:
    """Catches a program that fails when it runs and stays in."""

    def failing(body: dict[str, Any], text: str) -> str:
        number = random.Random(str(body)).randrange(4)
        return f"It divides and then prints.\n\n```python\nprint(12 // {number})\n```"

    counts = domains(1, 1, 8)["code"] | {"check": {"by": "programs"}}
    items, *_ = run(tmp_path, Tampered("response", failing), domains={"code": counts}, turns={"share": 0.0})
    bad = [item for item in items if "// 0" in str(item.response)]
    assert bad and all(item.reason.startswith("code does not run: ZeroDivisionError") for item in bad)
    assert sum(item.status == "accepted" for item in items) == 8


@pytest.mark.parametrize(("by", "refused"), [("programs", True), ("agreement", False)])
def test_programs_that_may_not_run_are_told_first(
    by: str, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Catches a run that pays for answers and then finds that it cannot check them; and a refusal where nothing is to be run."""
    monkeypatch.setattr(levels, "works", lambda level: level == "limits")
    monkeypatch.delenv(levels.VARIABLE, raising=False)
    counts = domains(1, 1, 2)
    recipe = make_recipe(tmp_path / "out", domains=counts | {"code": counts["code"] | {"check": {"by": by}}})
    engine = Scripted(Writer())
    with pytest.raises(UserError, match="generated programs are not run here") if refused else nullcontext():
        run_recipe(recipe, engine, until="meta_topics")
    assert bool(engine.asked) != refused


def test_thoughts_get_into_no_data(tmp_path: Path) -> None:
    """A reasoning model's drafts are taken for its answers, or its thoughts become training data."""
    plain, draft = Writer(), Writer(seed=1)

    def thinking(body: dict[str, Any], n: int) -> str:
        return f"<think>Perhaps this:\n{draft(body, n)}\nNo.</think>\n\n{plain(body, n)}"

    recipes = [make_recipe(tmp_path / name, domains=domains(1, 2, 8)) for name in ("plain", "thinking")]
    for recipe, script in zip(recipes, (plain, thinking), strict=True):
        run_recipe(recipe, Scripted(script))
    without, thought = map(tables, recipes)
    assert thought == without and "<think>" not in str(thought)


def test_low_scores_are_dropped(tmp_path: Path) -> None:
    """Catches a score that is read wrongly or not respected, and an item that is accepted without one."""

    def grade(body: dict[str, Any], text: str) -> str:
        number = random.Random(str(body)).randrange(1, 11)
        return json.dumps({"reason": "as it is", "score": number}) if number < 9 else "Nice!"

    items, engine, *_ = run(tmp_path, Tampered("reason", grade), score={"minimum": 5}, turns={"share": 0.0})
    accepted = [item for item in items if item.status == "accepted"]
    assert len(accepted) == 40 and all(5 <= item.provenance["score"]["score"] <= 8 for item in accepted)
    dropped = {item.reason.partition(":")[0] for item in items if item.step == "score" and item.status == "dropped"}
    assert dropped <= {"scored low", "no score"} and "scored low" in dropped
    assert {request.temperature for request in engine.asked if request.step == "score"} == {0.0}


def test_benchmarks_stay_out(tmp_path: Path) -> None:
    """Catches an instruction or an answer that shares a run of words with test data, and one that is paid for nevertheless."""
    words = "seven clever foxes counted every single apple in the quiet garden before the long winter came"
    (tmp_path / "gsm8k_test.jsonl").write_text(json.dumps({"id": "t1", "prompt": words, "response": "#### 7", "answer": "7"}))

    def leaking(body: dict[str, Any], text: str) -> str:
        return (
            text if random.Random(str(body)).random() < 0.8 else json.dumps({"instructions": [{"line": 1, "instruction": words}]})
        )

    checked = {"test_sets": ["gsm8k"], "data_dir": str(tmp_path)}
    items, engine, *_ = run(tmp_path, Tampered("instructions", leaking), decontaminate=checked)
    caught = [item for item in items if item.reason.startswith("overlaps a benchmark: ")]
    assert caught and all(item.instruction == words and "gsm8k t1" in item.reason for item in caught)
    assert not any(words in str(request.messages[-1:]) for request in engine.asked if request.step == "responses")


def test_a_large_quota_grows_from_few_seeds(tmp_path: Path) -> None:
    """Catches many requests at once that know nothing of each other: of a large quota the first round takes a part only."""
    counts = domains(1, 1, 600)["code"]
    items, engine, *_ = run(tmp_path, Writer(bad=0.0), domains={"code": counts}, turns={"share": 0.0}, per_request=5)
    assert sum(item.status == "accepted" for item in items) == 600
    asked = [str(request.messages[0]["content"]) for request in engine.asked if request.step == "instructions"]
    blind = [prompt for prompt in asked if "These already exist" not in prompt]
    assert len(blind) == 2 and len(asked) >= 120


def test_missing_test_data_are_told_first(tmp_path: Path) -> None:
    """Catches a run that pays for topics and then finds that there is nothing to compare instructions with."""
    recipe = make_recipe(tmp_path / "out", decontaminate={"test_sets": ["gsm8k"], "data_dir": str(tmp_path / "none")})
    engine = Scripted(Writer())
    with pytest.raises(UserError, match="none"):
        run_recipe(recipe, engine)
    assert not engine.asked
