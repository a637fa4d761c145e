"""What is read out of replies: JSON as models write it, headers of rate limits; and the line that shows progress."""

from __future__ import annotations

import io
import json
import random
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from rich.console import Console

from fake_endpoint import SPOILED
from ultrafuser.endpoints.lenient import parse_json
from ultrafuser.endpoints.limits import Allowance, retry_after, seconds_in
from ultrafuser.endpoints.progress import Progress, duration, show_progress

VALUE = {"topics": ["a [b] {c}", 'quoted "word"', "line\nbreak", "é"], "n": 2.5, "none": None, "inner": {"yes": True}}


@pytest.mark.parametrize("kind", ["plain", "prose", "fence", "comma"])
@pytest.mark.parametrize("value", [VALUE, list(VALUE["topics"]), [{"a": 1}, {"a": 2}]])
def test_json_is_found_in_what_is_around_it(kind, value):
    """Catches prose, fences and commas that spoil an answer that was paid for."""
    text = json.dumps(value, ensure_ascii=False)
    assert parse_json(SPOILED[kind](text) if kind != "plain" else text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{'a': 1, 'b': [True, None]}", {"a": 1, "b": [True, None]}),
        ('{"a": "first line\nsecond line"}', {"a": "first line\nsecond line"}),
        ('{"a": 1, // a comment\n "b": 2}', {"a": 1, "b": 2}),
        ('{a: 1, "b": 2}', {"a": 1, "b": 2}),
        ("The list [1] says:\n```json\n[2, 3]\n```", [2, 3]),
        ('```json\n{"code": "```python\\nx\\n```"}\n```', {"code": "```python\nx\n```"}),
        ('<think>{"not": "this"} or so</think>{"a": 1}', {"a": 1}),
        ("[]", []),
        ("{}", {}),
    ],
)
def test_json_that_is_a_little_wrong_is_read(text, value):
    """Catches repairs that change what was meant."""
    assert parse_json(text) == value


def test_a_list_that_was_cut_off_keeps_its_whole_items():
    """Catches an answer thrown away because its end is missing."""
    items = [{"topic": f"number {n}"} for n in range(20)]
    read = parse_json(SPOILED["cut off"](json.dumps({"topics": items})))["topics"]
    assert read[:12] == items[:12] and len(read) < 20


@pytest.mark.parametrize("text", ["", "I cannot help with that.", "42", "null", '"text"', "```json\n```", "see [", "{"])
def test_what_is_no_json_is_an_error(text):
    """Catches an empty or made-up value for a refusal."""
    with pytest.raises(ValueError, match="no JSON"):
        parse_json(text)


def test_durations_of_headers():
    """Catches "6m0s" read as 6 seconds, milliseconds read as minutes, and a date in the past that waits for ever."""
    texts = {
        "20": 20,
        "1.5": 1.5,
        "20ms": 0.02,
        "1.5s": 1.5,
        "6m0s": 360,
        "1h2m3s": 3723,
        "1d": 86400,
        "": None,
        "soon": None,
        "-3": None,
    }
    assert {text: seconds_in(text) for text in texts} == pytest.approx(texts)
    assert retry_after({"retry-after": "7"}) == 7
    assert retry_after({"retry-after": "7", "retry-after-ms": "250"}) == 0.25
    assert retry_after({}) is None and retry_after({"retry-after": "later"}) is None
    for offset, seconds in ((300, 300), (-300, 0)):
        date = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=offset), usegmt=True)
        assert retry_after({"retry-after": date}) == pytest.approx(seconds, abs=60)


@pytest.mark.parametrize("seed", range(5))
def test_an_allowance_keeps_a_limit_that_it_only_knows_from_headers(seed):
    """Catches answers that come out of order or late making the limit look wider; and a limit that is hardly used.

    Compared with the server's own window, in simulated time: 10 requests a second, answers after 0.05 to 0.4 s.
    """
    draw, allowance = random.Random(seed), Allowance("requests")
    now, window_start, used, served, refused = 0.0, 0.0, 0, 0, 0
    on_the_way: list[tuple[float, object, dict[str, str]]] = []
    while now < 20:
        for item in sorted(entry for entry in on_the_way if entry[0] <= now):
            on_the_way.remove(item)
            allowance.back(item[1], item[2], now)
        known = served > 0 and allowance.limit is not None
        while allowance.wait(1, now) <= 0 and len(on_the_way) < (30 if known else 1):
            if now - window_start >= 1:
                window_start, used = now, 0
            used, served, refused = (used + 1, served + 1, refused) if used < 10 else (used, served, refused + 1)
            headers = {"limit": "10", "remaining": str(10 - used), "reset": f"{window_start + 1 - now:.3f}s"}
            headers = {f"x-ratelimit-{name}-requests": value for name, value in headers.items()}
            on_the_way.append((now + draw.uniform(0.05, 0.4), allowance.sent(1, now), headers))
        now += 0.01
    assert refused == 0
    assert served >= 0.6 * 10 * 20


def test_progress_in_words():
    """Catches a line that lacks rate, cost or time left, and one with a time left when all is done."""
    progress = Progress(
        "topics", 1200, 3000, from_store=5, requests_per_second=51.25, cost=0.314, seconds_left=35.1, note="[waiting]"
    )
    assert progress.line == "topics 1,200/3,000 (40%)  5 from the store  51.2/s  $0.31  0:35 left  [waiting]"
    assert Progress("", 0, 0).line == "requests 0/0 (100%)"
    assert Progress("a", 3, 3, seconds_left=0.1).line == "a 3/3 (100%)"
    assert [duration(seconds) for seconds in (0, 59.9, 61, 3600, 86399)] == ["0:00", "0:59", "1:01", "1:00:00", "23:59:59"]


@pytest.mark.parametrize("terminal", [True, False])
def test_one_line_stays_per_step(terminal):
    """Catches a line for every call in a log file, markup read out of an endpoint's words, and a step whose last line is lost."""
    out = io.StringIO()
    with show_progress(Console(file=out, force_terminal=terminal, width=100)) as show:
        for step in ("topics", "answers"):
            for done in range(11):
                show(Progress(step, done, 10, note="[/x]" if done < 10 else ""))
    lines = [line for line in out.getvalue().splitlines() if "10/10" in line]
    assert "topics 10/10 (100%)" in out.getvalue() and "answers 10/10 (100%)" in out.getvalue()
    assert terminal or len(lines) == len(out.getvalue().splitlines()) == 2
