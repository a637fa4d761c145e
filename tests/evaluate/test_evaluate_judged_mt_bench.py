"""MT-Bench against judges over real HTTP whose marks can be worked out by hand."""

from __future__ import annotations

import gzip
import json
import math
import statistics
from pathlib import Path

import pytest
from judged_world import CATEGORIES, between, grader, quality_of, settings, verdict, write_jsonl, write_mt_bench

from fake_endpoint import FakeEndpoint
from ultrafuser.errors import UserError
from ultrafuser.evaluate.judged.mt_bench import run_mt_bench

COUNT = 12
OFFICIAL = [
    {
        "id": f"judge-single{math_part}-v1{turns_part}",
        "name": f"single{math_part}-v1{turns_part}",
        "system_prompt": f"judge{math_part}{turns_part}",
        "prompt": " / ".join(
            (["{question}", "{answer}"] if not turns_part else ["{question_1}", "{answer_1}", "{question_2}", "{answer_2}"])
            + (["{ref_answer_1}"] if math_part else [])
            + (["{ref_answer_2}"] if math_part and turns_part else [])
        ),
    }
    for math_part in ("", "-math")
    for turns_part in ("", "-multi-turn")
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_mt_bench(tmp_path, COUNT)
    return tmp_path


def mark(i: int, turn: int) -> int:
    return 1 + (i * 3 + turn * 4) % 10


def student(batch: list) -> list[str]:
    """Answers question i turn t with the quality `mark(i, t)`."""
    words = [messages[-1]["content"].split() for messages in batch]
    return [f"answer {i} turn {turn}, quality {mark(int(i), int(turn))}" for _, i, _, turn in words]


def test_marks(folder: Path) -> None:
    """A turn is missing or counted twice, a mark lands in the wrong place, or the error takes turns for independent."""
    with FakeEndpoint(script=grader) as server:
        score = run_mt_bench(student, settings(server, folder))
    marks = [[mark(i, 1), mark(i, 2)] for i in range(COUNT)]
    assert score.value == pytest.approx(statistics.mean(map(statistics.mean, marks)))
    assert score.standard_error == pytest.approx(statistics.stdev(map(statistics.mean, marks)) / math.sqrt(COUNT))
    assert (score.n, score.unparsed, len(server.requests)) == (COUNT, 0, 2 * COUNT)
    first, second = (statistics.mean(turn) for turn in zip(*marks, strict=True))
    assert f"turn 1: {first:.2f}, turn 2: {second:.2f}" in score.notes
    by_category = {name: statistics.mean(map(statistics.mean, marks[place::4])) for place, name in enumerate(CATEGORIES)}
    assert ", ".join(f"{name}: {by_category[name]:.2f}" for name in sorted(by_category)) in score.notes
    for record in score.records:
        assert record["marks"] == marks[int(record["id"].split("-")[1])]
        assert [one["turn"] for one in record["verdicts"]] == [1, 2] and record["verdicts"][0]["judge"] == "fake-0001"


def test_second_turn_has_the_first_answer_before_it(folder: Path) -> None:
    """The model is asked the second turn without its history, with someone else's, or one by one instead of in a batch."""
    batches: list[list] = []

    def watched(batch: list) -> list[str]:
        batches.append(batch)
        return student(batch)

    with FakeEndpoint(script=grader) as server:
        run_mt_bench(watched, settings(server, folder))
    first, second = batches
    assert len(first) == len(second) == COUNT
    for one, two in zip(first, second, strict=True):
        i = one[0]["content"].split()[1]
        assert one == [{"role": "user", "content": f"question {i} turn 1"}]
        assert two == [
            *one,
            {"role": "assistant", "content": student([one])[0]},
            {"role": "user", "content": f"question {i} turn 2"},
        ]


def test_what_the_judge_sees(folder: Path) -> None:
    """The judge gets no reference in math, coding and reasoning, one in writing, or turn 2 in the prompt about turn 1."""
    with FakeEndpoint(script=grader) as server:
        run_mt_bench(student, settings(server, folder))
    for body in server.requests:
        text = body["messages"][-1]["content"]
        i = int(between(text, "question ", " turn"))
        turns = 2 if f"question {i} turn 2" in text else 1
        assert [f"answer {i} turn {turn}," in text for turn in (1, 2)] == [True, turns == 2]
        graded_by_reference = i % 4 != CATEGORIES.index("writing")
        assert [f"right {i} turn {turn}" in text for turn in (1, 2)] == [graded_by_reference, graded_by_reference and turns == 2]


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz"])
def test_official_prompts(folder: Path, ending: str) -> None:
    """Official prompts in the data directory are not used, or the wrong one, or one field is filled with another's text."""
    lines = "".join(json.dumps(record) + "\n" for record in OFFICIAL).encode()
    (folder / "eval" / f"mt_bench_judge_prompts{ending}").write_bytes(gzip.compress(lines) if ending.endswith("gz") else lines)
    by_quality = lambda body, n: f"It is fine. Rating: [[{quality_of(body['messages'][-1]['content'])}]]"  # noqa: E731
    with FakeEndpoint(script=by_quality) as server:
        score = run_mt_bench(student, settings(server, folder))
    seen = {tuple(message["content"] for message in body["messages"]) for body in server.requests}
    wanted = set()
    for i in range(COUNT):
        kind = "" if i % 4 == CATEGORIES.index("writing") else "-math"
        said = [f"question {i} turn 1", f"answer {i} turn 1, quality {mark(i, 1)}"]
        more = [f"question {i} turn 2", f"answer {i} turn 2, quality {mark(i, 2)}"]
        right = [f"right {i} turn 1", f"right {i} turn 2"] if kind else []
        wanted |= {(f"judge{kind}", " / ".join(said + right[:1])), (f"judge{kind}-multi-turn", " / ".join(said + more + right))}
    assert seen == wanted
    assert score.value == pytest.approx(statistics.mean(mark(i, turn) for i in range(COUNT) for turn in (1, 2)))
    assert all("response_format" not in body for body in server.requests)


def test_broken_official_prompts(folder: Path) -> None:
    """A file of official prompts that lacks one, or a field, is found out after the model has answered, or as a KeyError."""
    write_jsonl(folder / "eval" / "mt_bench_judge_prompts.jsonl", OFFICIAL[:3])
    with FakeEndpoint() as server, pytest.raises(UserError, match="no prompt 'single-math-v1-multi-turn'"):
        run_mt_bench(lambda batch: pytest.fail("asked"), settings(server, folder))
    for field, why in (("{rubric}", "'rubric'"), ("{question_1.text}", "'str' object has no attribute 'text'")):
        unknown = [record | {"prompt": record["prompt"] + field * ("turn" in record["name"])} for record in OFFICIAL]
        write_jsonl(folder / "eval" / "mt_bench_judge_prompts.jsonl", unknown)
        with FakeEndpoint() as server, pytest.raises(UserError, match=rf"the prompt for 2 turns cannot be filled in \({why}\)"):
            run_mt_bench(lambda batch: pytest.fail("asked"), settings(server, folder))


def test_empty_answers_and_impossible_marks(folder: Path) -> None:
    """Nothing said is worth more than the lowest mark, or 11 of 10 is taken (or bent) into the mean."""
    with FakeEndpoint(script=grader) as server:
        score = run_mt_bench(lambda batch: [""] * len(batch), settings(server, folder))
        assert (score.value, score.unparsed, server.requests) == (1.0, 0, [])

    def generous(body: dict, n: int) -> str:
        text = body["messages"][-1]["content"]
        return verdict(11) if "question 5 turn 2" in text else grader(body, n)

    with FakeEndpoint(script=generous) as server:
        score = run_mt_bench(student, settings(server, folder))
    marks = [mark(i, turn) for i in range(COUNT) for turn in (1, 2) if (i, turn) != (5, 2)]
    assert score.value == pytest.approx(statistics.mean(marks))
    assert (score.n, score.unparsed) == (COUNT, 1)
