"""Judges that fail, stall, babble, cost too much or are not there, and runs that are killed: over real HTTP."""

from __future__ import annotations

import os
import re
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web
from judged_world import (
    REFERENCE_QUALITY,
    always_first,
    fair,
    grader,
    model,
    never,
    quality_of,
    settings,
    shown,
    write_alpaca_eval,
    write_mt_bench,
)

from fake_endpoint import FakeEndpoint, Reply, troubled
from ultrafuser.endpoints.budget import BudgetReached
from ultrafuser.endpoints.line import Patience
from ultrafuser.endpoints.store import AnswerStore
from ultrafuser.errors import UserError
from ultrafuser.evaluate.judged.alpaca_eval import run_alpaca_eval
from ultrafuser.evaluate.judged.mt_bench import run_mt_bench

COUNT = 30
PRICES = (1000.0, 0.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_alpaca_eval(tmp_path, COUNT)
    return tmp_path


def mixed(i: int) -> int:
    return (i * 7) % 11


def win(i: int) -> float:
    return 1.0 if mixed(i) > REFERENCE_QUALITY else 0.5 if mixed(i) == REFERENCE_QUALITY else 0.0


CLEAN = statistics.mean(map(win, range(COUNT)))


def one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text and len(text) < 400
    return text


# -- not usable at all: said before the model under test answers anything


@pytest.mark.parametrize("run", [run_alpaca_eval, run_mt_bench])
def test_nobody_there(folder: Path, run) -> None:
    """An address where nobody listens is a traceback, or found out after hours of answering."""
    with FakeEndpoint() as server:
        gone = settings(server, folder)
    with pytest.raises(UserError) as error:
        run(never, gone)
    assert f"judge {gone.base_url}: cannot be reached (Connection refused); check --judge-url" == one_line(error)


def test_wrong_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing or wrong key is found out late, or is printed."""
    with FakeEndpoint(script=fair, api_key="right") as server:
        with pytest.raises(UserError, match=r"NO_SUCH_KEY .* is not set"):
            run_alpaca_eval(never, settings(server, folder, api_key_env="NO_SUCH_KEY"))
        with pytest.raises(UserError, match=r"refuses the key \(HTTP 401\); check --judge-key-env \(not given\)"):
            run_alpaca_eval(never, settings(server, folder))
        monkeypatch.setenv("JUDGE_KEY", "sk-wrong")
        with pytest.raises(UserError) as error:
            run_alpaca_eval(never, settings(server, folder, api_key_env="JUDGE_KEY"))
        assert one_line(error).endswith("refuses the key (HTTP 401); check the environment variable JUDGE_KEY")
        assert "sk-wrong" not in str(error.value)
        monkeypatch.setenv("JUDGE_KEY", "right")
        assert run_alpaca_eval(model(mixed), settings(server, folder, api_key_env="JUDGE_KEY")).value == CLEAN
    for file in folder.iterdir():
        assert file.is_dir() or b"right" not in file.read_bytes()


def test_unknown_model(folder: Path) -> None:
    """A mistyped judge is found out late; or a judge is refused because the endpoint lists it under a longer name."""
    with FakeEndpoint(script=fair, models=("big-judge", "small-judge")) as server:
        with pytest.raises(UserError) as error:
            run_alpaca_eval(never, settings(server, folder, model="big-jugde"))
        assert "has no model 'big-jugde', only big-judge, small-judge; did you mean 'big-judge'?" in one_line(error)
    with FakeEndpoint(script=fair, models=("org/judge", "judge")) as server:
        run_alpaca_eval(model(mixed), settings(server, folder, model="judge"))


def test_another_judge_of_the_same_name(folder: Path) -> None:
    """Verdicts of one model pass for those of another that a second server calls alike; or a server that moved starts anew."""
    with FakeEndpoint(script=always_first) as other, FakeEndpoint(script=fair) as server:
        run_alpaca_eval(model(mixed), settings(other, folder))
        with pytest.raises(UserError) as error:
            run_alpaca_eval(never, settings(server, folder))
        urls = f"from {other.base_url}, not from {server.base_url}; if that is the same judge give --judge-moved"
        assert f"judge.sqlite: holds verdicts of 'fake' {urls}, else choose another --out" in one_line(error)
        assert not server.requests
        run_alpaca_eval(model(mixed), settings(other, folder))  # where it was
        assert run_alpaca_eval(model(mixed), settings(server, folder, store=folder / "own.sqlite")).value == CLEAN
        before = len(server.requests)
        assert run_alpaca_eval(model(mixed), settings(server, folder, moved=True)).value == 0.5
        assert run_alpaca_eval(model(mixed), settings(server, folder)).value == 0.5  # said once
        assert len(server.requests) == before and len(other.requests) == 2 * COUNT
        assert run_alpaca_eval(model(lambda i: 11), settings(server, folder)).value == 1.0
        assert len(server.requests) > before
        assert run_alpaca_eval(model(mixed), settings(other, folder)).value == 0.5  # the same judge, at both
    with FakeEndpoint(script=fair) as third, pytest.raises(UserError, match="give --judge-moved"):
        run_alpaca_eval(never, settings(third, folder))


class Unlisted(FakeEndpoint):
    """A server that answers, but lists no models."""

    async def _list_models(self, request: web.Request) -> web.Response:
        return web.Response(status=404)


GREETED = "Are you there?"


def greets(body: dict, n: int) -> str:
    return "Yes." if GREETED in body["messages"][-1]["content"] else fair(body, n)


@pytest.mark.parametrize("run", [run_alpaca_eval, run_mt_bench])
def test_url_without_its_v1(folder: Path, run) -> None:
    """A judge's URL that nothing answers at is found out after the model has answered everything."""
    write_mt_bench(folder, COUNT)
    with FakeEndpoint(script=fair) as server, pytest.raises(UserError) as error:
        run(never, settings(server, folder, base_url=server.base_url.removesuffix("/v1")))
    assert "Not Found (HTTP 404); check base_url (eval: --judge-url), which mostly ends in /v1" in one_line(error)


def test_judge_that_lists_no_models(folder: Path) -> None:
    """It is taken for one that is not there, asked anew whether it is before every task, or its key is not tried."""
    with Unlisted(script=greets, api_key="right") as server, pytest.raises(UserError, match=r"\(HTTP 401\)"):
        run_alpaca_eval(never, settings(server, folder))
    with Unlisted(script=greets) as server:
        for _ in range(2):
            assert run_alpaca_eval(model(mixed), settings(server, folder)).value == CLEAN
        asked = [body["messages"][-1]["content"] for body in server.requests]
        assert [GREETED in text for text in asked] == [True] + [False] * 2 * COUNT
        with pytest.raises(UserError, match=r"refuses any question \(error: .*\); check --judge-url"):
            server.context = 1
            run_alpaca_eval(never, settings(server, folder, store=folder / "other.sqlite"))
    with Unlisted(script=greets) as server:  # moved: what another URL has answered says nothing of this one
        assert run_alpaca_eval(model(mixed), settings(server, folder, moved=True)).value == CLEAN
        assert len(server.requests) == 1


def test_judge_that_was_only_greeted(folder: Path) -> None:
    """Its yes passes for a verdict: the same command with another URL is refused."""

    def killed(conversations: list) -> list[str]:
        raise KeyboardInterrupt

    with Unlisted(script=greets) as other, pytest.raises(KeyboardInterrupt):
        run_alpaca_eval(killed, settings(other, folder))
    assert len(other.requests) == 1
    with FakeEndpoint(script=fair) as server:
        assert run_alpaca_eval(model(mixed), settings(server, folder)).value == CLEAN


# -- fails now and then: nothing of it shows in the score


@pytest.mark.parametrize("kinds", [("500", "503"), ("429", "cut"), ("garbage",)])
def test_failures_that_pass(folder: Path, kinds: tuple[str, ...]) -> None:
    """A request that failed once is lost, counts as unread, or its verdict is credited to another pair."""
    with FakeEndpoint(script=troubled(fair, 0.4, kinds=kinds)) as server:
        score = run_alpaca_eval(model(mixed), settings(server, folder))
    assert server.counts.total() > 2 * COUNT, "no request failed: the test shows nothing"
    assert (score.value, score.n, score.unparsed) == (pytest.approx(CLEAN), COUNT, 0)


def test_stalls_that_pass(folder: Path) -> None:
    """A request without an answer is waited for without end."""

    def stalls(body: dict, n: int) -> Reply | str:
        return Reply(stall=True) if n == 0 and quality_of(shown(body)[0]) == 3 else fair(body, n)

    with FakeEndpoint(script=stalls) as server:
        score = run_alpaca_eval(model(mixed), settings(server, folder, timeout=0.5))
    assert server.counts["stall"] > 0
    assert (score.value, score.n) == (pytest.approx(CLEAN), COUNT)


# -- fails for good: one line, and what was judged is kept


@pytest.mark.parametrize(
    ("reply", "line", "timeout"),
    [
        (Reply(stall=True), "gave no whole answer within 2 s", 2.0),
        (Reply("The server is on fire.", 500), "The server is on fire. (HTTP 500)", 60.0),
        (Reply("You exceeded your quota.", 429, code="insufficient_quota"), "You exceeded your quota.", 60.0),
    ],
)
def test_failures_that_do_not_pass(folder: Path, reply: Reply, line: str, timeout: float) -> None:
    """A judge that dies in the middle loses the verdicts so far, is a traceback, or keeps the run waiting for ever."""
    answered: set[tuple] = set()

    def dies(body: dict, n: int) -> Reply | str:
        if len(answered) < 20:
            answered.add(shown(body))
        return fair(body, n) if shown(body) in answered else reply  # so too where it is asked again, since it came too late

    impatient = Patience(tries=2, first_wait=0.01, longest_wait=0.02)
    with FakeEndpoint(script=dies) as server:
        with pytest.raises(UserError) as error:
            run_alpaca_eval(model(mixed), settings(server, folder, timeout=timeout, patience=impatient))
        assert line in one_line(error) and server.base_url in str(error.value)
        kept = kept_verdicts(folder / "judge.sqlite")
        assert kept == 20 or (reply.stall and 0 < kept < 20)  # on a machine that stands still, twice too late
        before, server.script = len(server.answered), fair
        score = run_alpaca_eval(model(mixed), settings(server, folder))
        assert len(server.answered) - before == 2 * COUNT - kept
    assert score.value == pytest.approx(CLEAN)


def kept_verdicts(store: Path) -> int:
    with AnswerStore(store, read_only=True) as answers:
        return sum(totals.answers for totals in answers.totals().values())


@pytest.mark.parametrize("run", [run_alpaca_eval, run_mt_bench])
def test_nothing_but_babble(folder: Path, run) -> None:
    """A judge that never gives a verdict is paid for every question, or the user is not told what it said."""
    write_mt_bench(folder, COUNT)
    answers = model(mixed)
    with FakeEndpoint(script=lambda body, n: "lorem ipsum " * 1000) as server, pytest.raises(UserError) as error:
        run(answers, settings(server, folder))
    assert "gave no verdict that can be read on the first 10 questions; it said 'lorem ipsum lorem" in one_line(error)
    assert len(server.requests) == 30


def test_prompts_too_long_for_the_judge(folder: Path) -> None:
    """Pairs that the judge refuses count as lost, or are asked three times; a judge that refuses all is not one clear line."""

    def answers(batch: list) -> list[str]:
        texts = zip(batch, model(mixed)(batch), strict=True)
        return [text + (" blah" * 500 if messages[0]["content"] == "question 7" else "") for messages, text in texts]

    with FakeEndpoint(script=fair, context=400) as server:
        score = run_alpaca_eval(answers, settings(server, folder))
        assert (score.n, score.unparsed) == (COUNT - 1, 1)
        assert server.counts["400"] == 4  # each order once, and once without structured output
        assert any("2 verdicts left out: refused by the endpoint (error: " in note for note in score.notes)
    with FakeEndpoint(script=fair, context=10) as server, pytest.raises(UserError) as error:
        run_alpaca_eval(answers, settings(server, folder, store=folder / "other.sqlite"))
    assert "maximum context length is 10 tokens" in one_line(error)


# -- the spending cap, and kills


def spent(server: FakeEndpoint) -> float:
    return sum(sum(len(message["content"].split()) for message in body["messages"]) for body in server.answered) * PRICES[0] / 1e6


def test_spending_cap(folder: Path) -> None:
    """The cap is passed, a number of some of the pairs passes for that of all, or a verdict is paid for twice."""
    with FakeEndpoint(script=fair) as server:
        run_alpaca_eval(model(mixed), settings(server, folder, store=folder / "all.sqlite"))
        whole = spent(server)
    with FakeEndpoint(script=fair) as server:
        with pytest.raises(BudgetReached) as error:
            run_alpaca_eval(model(mixed), settings(server, folder, prices=PRICES, budget=whole / 2))
        assert spent(server) <= whole / 2
        half = len(server.answered)
        assert 0 < half < 2 * COUNT
        value, pairs = re.search(
            r"Partial, so far: win rate ([\d.]+)% ± [\d.]+% over (\d+) of 30 pairs", one_line(error)
        ).groups()
        shown_pairs = {shown(body) for body in server.answered}
        both = [first for first, second in shown_pairs if (second, first) in shown_pairs and first.startswith("mine")]
        wins = [1.0 if quality_of(text) > 5 else 0.5 if quality_of(text) == 5 else 0.0 for text in both]
        assert (int(pairs), value) == (len(wins), f"{100 * statistics.mean(wins):.1f}")
        score = run_alpaca_eval(model(mixed), settings(server, folder, prices=PRICES, budget=2 * whole))
        assert len(server.answered) == 2 * COUNT == len({shown(body) for body in server.answered})
    assert score.value == pytest.approx(CLEAN)
    assert sum(record["cost"] for record in score.records) == pytest.approx(whole)
    assert any(f"60 verdicts ({whole:.4f} USD)" in note for note in score.notes)


def test_spending_cap_of_mt_bench(folder: Path) -> None:
    """The partial mark is marked as whole, or takes what was not graded for a mark."""
    write_mt_bench(folder, COUNT)

    def student(batch: list) -> list[str]:
        return [f"{messages[-1]['content']}, quality 6" for messages in batch]

    with FakeEndpoint(script=grader) as server:
        with pytest.raises(BudgetReached, match=r"Partial, so far: mean mark 6.00 ± 0.00 over \d+ of 60 answers"):
            run_mt_bench(student, settings(server, folder, prices=PRICES, budget=4.0))
        score = run_mt_bench(student, settings(server, folder, prices=PRICES, budget=400.0))
    assert (score.value, len(server.answered)) == (6.0, 2 * COUNT)


def test_one_budget_for_all_tasks_and_models(folder: Path) -> None:
    """Each task, or each model, has a spending cap of its own."""
    write_mt_bench(folder, COUNT)

    def judge(body: dict, n: int) -> str:
        return fair(body, n) if "<answer_A>" in body["messages"][-1]["content"] else grader(body, n)

    with FakeEndpoint(script=judge) as server:
        run_alpaca_eval(model(mixed), settings(server, folder, prices=PRICES, budget=1000.0))
        cap = 1.2 * spent(server)
        assert cap > 0
        with pytest.raises(BudgetReached):  # another task of the same model
            run_mt_bench(lambda batch: ["quality 6" for _ in batch], settings(server, folder, prices=PRICES, budget=cap))
        with pytest.raises(BudgetReached):  # another model
            run_alpaca_eval(model(lambda i: 7), settings(server, folder, prices=PRICES, budget=cap))
        assert spent(server) <= cap
        run_alpaca_eval(model(mixed), settings(server, folder, prices=PRICES, budget=cap))  # kept verdicts cost nothing


CHILD = """
import sys
sys.argv[0] = "ultrafuser"  # as in the command line: torch is not loaded
from pathlib import Path
from types import SimpleNamespace
from judged_world import model, settings
from ultrafuser.evaluate.judged.alpaca_eval import run_alpaca_eval
assert "torch" not in sys.modules
server = SimpleNamespace(base_url=sys.argv[1])
print(run_alpaca_eval(model(lambda i: (i * 7) % 11), settings(server, Path(sys.argv[2]))).value)
"""


def test_killed_and_resumed(folder: Path) -> None:
    """After a kill a verdict that was kept is asked for again, or the store is damaged."""
    client: list[subprocess.Popen] = []

    def kills(body: dict, n: int) -> str:
        if client and len(server.log) == 40:
            os.kill(client.pop().pid, signal.SIGKILL)
        return fair(body, n)

    with FakeEndpoint(script=kills) as server:
        command = [sys.executable, "-c", CHILD, server.base_url, str(folder)]
        paths = os.pathsep.join(path for path in sys.path if path)
        client.append(subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}))
        assert client[0].wait(300) == -signal.SIGKILL
        server.stop()  # what the dead client has sent may still be on its way
        kept, before = kept_verdicts(folder / "judge.sqlite"), len(server.requests)
        server.start()
        assert 0 < kept < 2 * COUNT
        score = run_alpaca_eval(model(mixed), settings(server, folder))
        assert len(server.requests) - before == 2 * COUNT - kept
    assert score.value == pytest.approx(CLEAN)
