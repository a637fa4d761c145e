"""The store: what is committed stays, whose it is, what it says when it cannot be used."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from asking import numbered

from ultrafuser.endpoints.request import ChatAnswer, ChatRequest
from ultrafuser.endpoints.store import AnswerStore, Totals
from ultrafuser.errors import UserError


def answer_to(request: ChatRequest, text: str = "yes", **fields) -> ChatAnswer:
    defaults = {"finish_reason": "stop", "prompt_tokens": 2, "completion_tokens": 1, "cost": 0.25, "model": "x", "endpoint": "e"}
    return ChatAnswer(request.key, text, **{**defaults, "seconds": 0.5, **fields})


def test_answers_and_requests_come_back_as_they_were(tmp_path):
    """Catches a field that is lost or mixed up on the way through the file, also beyond one query's share of keys."""
    requests = [
        replace(request, schema={"é": [1.5, None]}, temperature=0.1, attempt=n) for n, request in enumerate(numbered(20_003))
    ]
    answers = [answer_to(request, f"text {n} \u00e9\U0001f600", seconds=n / 7) for n, request in enumerate(requests)]
    with AnswerStore(tmp_path / "a #1?.sqlite") as store:
        store.add_requests(requests)
        store.add_answers(answers[:-1])
    with AnswerStore(tmp_path / "a #1?.sqlite", read_only=True) as store:
        assert store.get_many([request.key for request in requests]) == {answer.key: answer for answer in answers[:-1]}
        rows = store.connection.execute("SELECT content, step FROM requests ORDER BY rowid")
        assert [ChatRequest.from_content(*row) for row in rows] == requests


def test_the_first_answer_and_the_first_step_stay(tmp_path):
    """Catches an answer that was used being replaced by a later one."""
    (request,) = numbered(1, step="first")
    with AnswerStore(tmp_path / "a.sqlite") as store:
        for step, text in (("first", "one"), ("second", "two")):
            store.add_requests([replace(request, step=step)])
            store.add_answers([answer_to(request, text)])
        assert store.get_many([request.key])[request.key].text == "one"
        assert store.totals() == {"first": Totals(1, 1, 2, 1, 0.25)}


def test_totals_are_per_step_and_failures_are_no_answers(tmp_path):
    """Catches failures that count as answers or are paid for, and steps that are mixed up or out of order."""
    one, two = numbered(3, step="z first"), numbered(2, start=3, step="a second")
    with AnswerStore(tmp_path / "a.sqlite") as store:
        store.add_requests([*one, *two])
        store.add_answers([answer_to(one[0]), answer_to(one[1]), ChatAnswer(two[0].key, "", "error: too long", endpoint="e")])
        assert list(store.totals().items()) == [("z first", Totals(3, 2, 4, 2, 0.5)), ("a second", Totals(2))]
        assert store.spent() == 0.5
        assert store.get_many([two[0].key]) == {}
        assert [failure[:3] for failure in store.failures()] == [(two[0].key, "error: too long", "e")]


def test_a_transaction_is_all_or_nothing_and_others_join_it(tmp_path):
    """Catches half of a step's rows after a crash, and answers committed apart from the rows that stand for them."""
    (request,) = numbered(1)
    with AnswerStore(tmp_path / "a.sqlite") as store:
        store.connection.execute("CREATE TABLE items (n INTEGER)")
        with pytest.raises(KeyError), store.transaction() as connection:
            connection.execute("INSERT INTO items VALUES (1)")
            store.add_answers([answer_to(request)])
            raise KeyError
        assert store.connection.execute("SELECT count(*) FROM items").fetchone() == (0,)
        assert store.get_many([request.key]) == {}
        with store.transaction() as connection:
            connection.execute("INSERT INTO items VALUES (1)")
            store.add_answers([answer_to(request)])
        assert len(store.get_many([request.key])) == 1


def test_a_store_of_another_recipe_is_refused(tmp_path):
    """Catches answers of one recipe used for another."""
    for identity in ("recipe one", "recipe one"):
        with AnswerStore(tmp_path / "a.sqlite") as store:
            store.claim(identity)
    with AnswerStore(tmp_path / "a.sqlite") as store, pytest.raises(UserError, match=r"a\.sqlite: .* another recipe"):
        store.claim("recipe two")


def test_one_process_writes_and_others_may_look(tmp_path):
    """Catches two runs that buy the same answers, a lock that outlives a killed process, and a report that needs the lock."""
    path = tmp_path / "a.sqlite"
    hold = (
        f"from ultrafuser.endpoints.store import AnswerStore; s = AnswerStore({str(path)!r}); print('held', flush=True); input()"
    )
    code = f"import sys; sys.argv[0] = 'ultrafuser'; {hold}"  # so that importing the package does not load torch
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=r"a\.sqlite: is in use by another process"):
            AnswerStore(path)
        with AnswerStore(path, read_only=True) as looking:
            assert looking.totals() == {}
            with pytest.raises(UserError, match="readonly"):
                looking.add_requests(numbered(1))
        other.kill()
    AnswerStore(path).close()


def test_what_is_no_store_is_left_alone(tmp_path):
    """Catches a traceback for, or damage to, a file that is something else."""
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to be taken for one\n" * 100)
    newer = tmp_path / "newer.sqlite"
    connection = sqlite3.connect(newer)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    before = text.read_bytes(), newer.read_bytes()
    cases = {text: "is not a store", newer: "format 99", tmp_path / "no" / "a.sqlite": "directory does not exist"}
    for path, word in cases.items():
        with pytest.raises(UserError, match=word) as error:
            AnswerStore(path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert (text.read_bytes(), newer.read_bytes()) == before
    with pytest.raises(UserError, match="no such store"):
        AnswerStore(tmp_path / "none.sqlite", read_only=True)
    assert not (tmp_path / "none.sqlite").exists()


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path):
    """Catches a traceback, a half-written answer, and a store that cannot be used after space has been made."""
    requests = numbered(400)
    with AnswerStore(tmp_path / "a.sqlite") as store:
        store.connection.execute("PRAGMA max_page_count=40")
        kept = []
        with pytest.raises(UserError, match=r"a\.sqlite: the disk is full") as error:
            for request in requests:
                store.add_answers([answer_to(request, "x" * 1000)])
                kept.append(request.key)
        assert 5 < len(kept) < 400 and "\n" not in str(error.value)
        assert sorted(store.get_many([request.key for request in requests])) == sorted(kept)
        store.connection.execute("PRAGMA max_page_count=100000")
        store.add_answers([answer_to(request) for request in requests])
        assert len(store.get_many([request.key for request in requests])) == 400


def test_a_disk_that_is_nearly_full_stops_before_anything_is_bought(tmp_path, monkeypatch):
    """Catches answers that are paid for and cannot be kept."""
    with AnswerStore(tmp_path / "a.sqlite") as store:
        store.require_room()
        monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10 * 2**20))
        with pytest.raises(UserError, match=r"a\.sqlite: needs .* are free"):
            store.require_room()


def test_a_kill_loses_nothing_that_was_committed(tmp_path):
    """Catches commits that wait in the process's own memory: the writer is killed without warning, then its file is read."""
    path = tmp_path / "a.sqlite"
    code = f"""
import sys; sys.argv[0] = "ultrafuser"
from ultrafuser.endpoints.request import ChatAnswer
from ultrafuser.endpoints.store import AnswerStore
store = AnswerStore({str(path)!r})
for n in range(10**6):
    store.add_answers([ChatAnswer(str(n), "text", "stop")])
    print(n, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as writer:
        for _ in range(300):
            last = int(writer.stdout.readline())
        writer.kill()
        told = [last, *map(int, writer.stdout.read().split("\n")[:-1])]
    with AnswerStore(path) as store:
        kept = {int(key) for (key,) in store.connection.execute("SELECT key FROM answers")}
    assert set(range(told[-1] + 1)) <= kept <= set(range(told[-1] + 2))


def test_keys_stay_what_they_are():
    """Catches a change of the key's make-up, which would make every store of earlier versions worthless."""
    request = ChatRequest("judge", ({"role": "user", "content": "Hé?"},), "a step", 0.5, None, 10, 1, {"type": "object"}, 2)
    assert request.content == (
        '{"attempt":2,"max_tokens":10,"messages":[{"content":"H\\u00e9?","role":"user"}],"model":"judge",'
        '"schema":{"type":"object"},"seed":1,"temperature":0.5,"top_p":null}'
    )
    assert request.key == "9df788489cc5b9238f74a6bb5ac233c88f5da076b13f0acb5230b86e25bb83ad"
    assert replace(request, step="another").key == request.key
    assert replace(request, messages=({"content": "Hé?", "role": "user"},)).key == request.key
    assert ChatRequest.from_content(request.content, "a step") == request
