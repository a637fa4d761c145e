"""The generated world: its tasks, its vocabulary and its checks, against second implementations written out here."""

from __future__ import annotations

import re

import pytest

from ultrafuser.errors import UserError
from ultrafuser.miniworld import build_tokenizer, check_answers, generate, to_record
from ultrafuser.miniworld.code_tasks import to_python
from ultrafuser.miniworld.language import TEMPLATES, vocabulary
from ultrafuser.miniworld.task import DOMAINS, Task

ALL = (*DOMAINS, "mixed")


def some(domain: str, n: int = 200) -> list[Task]:
    return generate(domain, n, 3, "test")


@pytest.mark.parametrize("domain", ALL)
def test_same_seed_same_tasks_and_sides_never_meet(domain: str) -> None:
    """Catches dependence on hash randomisation or global state, and test requests leaking into training."""
    test, train = some(domain), [task for seed in range(5) for task in generate(domain, 1000, seed, "train")]
    assert test == some(domain) and test != generate(domain, 200, 4, "test")
    assert not {task.prompt for task in test} & {task.prompt for task in train}
    requests = [{part.request for task in tasks for part in task.parts if not part.is_link} for tasks in (test, train)]
    assert not requests[0] & requests[1]


@pytest.mark.parametrize("domain", ALL)
def test_enough_families_and_no_repeats(domain: str) -> None:
    """Catches a family that never comes up, one so small that a test set repeats itself, and answers too long for the demo."""
    tasks = some(domain, 300)
    assert len({task.prompt for task in tasks}) == 300
    families = [task.family for task in tasks]
    assert len(set(families)) >= 4 and min(families.count(family) for family in set(families)) >= 5
    assert max(len(task.prompt.split()) for task in tasks) <= 30 and max(len(task.answer.split()) for task in tasks) <= 25


@pytest.mark.parametrize("domain", ALL)
def test_right_answers_pass_and_altered_ones_fail(domain: str) -> None:
    """Catches a check that refuses a right answer or lets a wrong one through."""
    tasks = some(domain, 60)
    answers = [task.answer for task in tasks]
    altered = [" ".join(swapped(answer.split())) for answer in answers]
    verdicts = check_answers(tasks * 3, [*answers, *altered, *[""] * len(tasks)])
    assert verdicts == [True] * len(tasks) + [False] * (2 * len(tasks))


def test_what_stands_before_a_function_is_judged() -> None:
    """Catches code answers that say something else than was asked, or nothing, or anything where nothing was asked."""
    tasks = [task for task in some("code", 100) if len(task.parts) == 1]
    spoiled = [f"lion lion lion then {task.answer.split('then ')[-1]}" for task in tasks]
    bare = [task.answer.split("then ")[-1] for task in tasks]
    asked = [task.parts[0].family == "hand_over" for task in tasks]
    assert check_answers(tasks * 2, [*spoiled, *bare]) == [False] * len(tasks) + [not say for say in asked] and any(asked)


def swapped(words: list[str]) -> list[str]:
    """The answer with its last number or plain word replaced by one that is wrong everywhere."""
    last = max(i for i, word in enumerate(words) if word.isalnum() and word not in ("s", "v", "x"))
    return [*words[:last], "98" if words[last].isdigit() else "rosas", *words[last + 1 :]]


def test_math_answers_agree_with_plain_arithmetic() -> None:
    """Catches a working that is wrong or does not lead to the value judged: every ``a op b = c`` is worked out again."""
    for task in some("math"):
        for part in task.parts:
            for left, sign, right, result in re.findall(r"(\d+) ([-+*]) (\d+) = (\d+)", part.answer):
                a, b = int(left), int(right)
                assert {"+": a + b, "-": a - b, "*": a * b}[sign] == int(result)
            assert part.answer.endswith(f"{part.check['value']} #### {part.check['value']}") or part.family == "compare"


def test_comparisons_work_out_both_sides_of_the_request() -> None:
    """Catches sides mixed up, the smaller one judged right, and a world that only ever compares sums."""
    comparisons = [part for task in some("math") for part in task.parts if part.family == "compare"]
    for part in comparisons:
        sides = part.request.removeprefix("which is more ").split(" or ")
        values = [eval(side) for side in sides]
        working = " ; ".join(f"{side} = {value}" for side, value in zip(sides, values, strict=True))
        assert part.answer == f"{working} #### {max(values)}" and part.check == {"value": max(values)}
    assert {sign for part in comparisons for sign in part.request.split() if sign in "+-"} == {"+", "-"}


def test_code_answers_do_what_the_request_says() -> None:
    """Catches expected values taken from the wrong formula: a function is read out of the request alone and compared."""
    seen = set()
    for task in some("code"):
        for part in task.parts:
            values = part.check["returns"]
            words = part.request.split()
            numbers = [int(word) for word in words if word.isdigit()]
            if part.family == "plain":
                seen.add(part.family)
                sign = {"plus": "+", "minus": "-", "times": "*"}[words[-2]]
                assert values == [eval(f"{x}{sign}{numbers[0]}") for (x,) in part.check["arguments"]]
            elif part.family == "choice":
                seen.add(part.family)
                a, limit, b = numbers
                for (x,), value in zip(part.check["arguments"], values, strict=True):
                    chosen = x > limit if "more" in words else x < limit
                    assert value == (a if chosen else x + b)
    assert seen == {"plain", "choice"}


def test_code_that_behaves_otherwise_than_asked_fails() -> None:
    """Catches code being judged by its looks: another program of the same behaviour passes, a near miss fails."""
    (task, *_) = [task for task in some("code") if task.family == "plain" and " plus " in task.prompt]
    name, number = task.parts[0].check["function"], task.prompt.split()[-1]
    right, wrong = f"def {name} ( x ) : return {number} + x", f"def {name} ( x ) : return {number} - x"
    loops = f"def {name} ( x ) : <nl1> while 1 : <nl2> x = 1"
    assert check_answers([task] * 4, [right, wrong, loops, f"def {name} ( x ) : return None"]) == [True, False, False, False]


def test_to_python_lays_out_lines_and_strings() -> None:
    """Catches wrong indentation or blanks left inside strings."""
    answer = 'def f ( v ) : <nl1> for x in v : <nl2> s = " dog " <nl1> return s'
    assert to_python(answer) == 'def f ( v ) :\n    for x in v :\n        s = "dog"\n    return s\n'


def test_labels_name_the_domain_of_every_answer_token() -> None:
    """Catches labels shifted at the border or counted on other tokens than the tokenizer's."""
    tokenizer = build_tokenizer("text")
    for task in some("mixed"):
        assert len(task.labels) == len(tokenizer(task.answer, add_special_tokens=False)["input_ids"])
        border = task.answer.split().index("then")
        first, second = (part.domain for part in task.parts)
        assert first != second and task.labels == [first] * (border + 1) + [second] * (len(task.labels) - border - 1)
    assert all(set(task.labels) == {"code"} for task in some("code"))


def test_links_use_the_answer_before_them() -> None:
    """Catches a second part that does not depend on the first one's answer."""
    for task in some("mixed"):
        if task.family.startswith("value_in"):
            value = task.parts[0].check["value"]
            link = task.parts[1]
            assert link.check["returns"] == [value] if link.domain == "code" else f" {value} " in link.answer


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_task_is_in_the_vocabulary_and_survives_decoding(template: str) -> None:
    """Catches words missing from the vocabulary and decoding that joins or cleans up words."""
    tokenizer = build_tokenizer(template)
    for domain in ALL:
        for task in some(domain):
            for text in (task.prompt, task.answer):
                ids = tokenizer(text, add_special_tokens=False)["input_ids"]
                assert tokenizer.unk_token_id not in ids and tokenizer.decode(ids, skip_special_tokens=True) == text
            record = to_record(task)
            assert (record["domain"], [m["content"] for m in record["messages"]]) == (task.domain, [task.prompt, task.answer])
    rendered = tokenizer.apply_chat_template([{"role": "user", "content": "hot"}], add_generation_prompt=True)["input_ids"]
    assert tokenizer.unk_token_id not in rendered and len(tokenizer) == len(vocabulary())


def test_templates_as_written_out_by_hand() -> None:
    """Catches a template that changes its shape or loses a turn."""
    turns = [{"role": "user", "content": "hot"}, {"role": "assistant", "content": "cold"}, {"role": "user", "content": "big"}]
    expected = {
        "text": "User: hot Assistant: cold </s> User: big Assistant:",
        "code": "<s> [INST] hot [/INST] cold </s> <s> [INST] big [/INST]",
        "math": "Below is an instruction. ### Instruction: hot ### Response: cold </s> ### Instruction: big ### Response:",
        "base": "hot => cold </s> big =>",
    }
    for name, text in expected.items():
        tokenizer = build_tokenizer(name)
        ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
        assert " ".join(tokenizer.convert_ids_to_tokens(ids)) == text


def test_unknown_domain_is_one_clear_line() -> None:
    """Catches a KeyError reaching the user."""
    with pytest.raises(UserError, match="did you mean 'math'"):
        generate("maths", 1, 0, "train")
