"""Reading conversations: every format gives the same list, and every mistake one line that says what, where and what to do."""

from __future__ import annotations

import gzip
import json
import re

import datasets
import pytest

from ultrafuser.data.conversations import Conversation, read_conversations
from ultrafuser.data.rows import local_path
from ultrafuser.errors import UserError


def chat(*contents, domain="text", system=None):
    """A record whose messages alternate from the user on."""
    messages = [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]
    return {"domain": domain, "messages": [{"role": "system", "content": system}] * (system is not None) + messages}


GOOD = [
    chat("hello", "hi"),
    chat("2 + 2?", "4", "and 3 + 3?", "6", domain="math", system="Count."),
    chat("print 'é'", "print('é')\n", domain="code"),
]


def write(path, records):
    """JSON lines; a record that is a string or bytes is written as it is."""
    lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def plain(conversations):
    return [{"domain": one.domain, "messages": one.messages} for one in conversations]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.json.gz", "a.parquet", "saved", "saved-splits", "files"])
def test_every_format_gives_the_same(name, tmp_path, monkeypatch):
    """Catches a format that loses order, roles or text."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    path = tmp_path / name
    table = datasets.Dataset.from_list(GOOD)
    text = "".join(json.dumps(record) + "\n" for record in GOOD)
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    elif name.endswith(".parquet"):
        table.to_parquet(path)
    elif name == "saved":
        table.save_to_disk(path)
    elif name == "saved-splits":
        datasets.DatasetDict(train=table, test=table.select([0])).save_to_disk(path)
    elif name == "files":
        path.mkdir()
        table.to_parquet(path / "train-0.parquet")
    else:
        path.write_text(text, encoding="utf-8")
    assert plain(read_conversations(path)) == plain(read_conversations(str(path), domains=["text", "code", "math"])) == GOOD


def test_split_of_a_local_directory(tmp_path):
    """Catches ``folder:split`` looked up on the hub although the folder is there, and the splits there are kept from the user."""
    table = datasets.Dataset.from_list(GOOD)
    datasets.DatasetDict(train=table, test=table.select([2])).save_to_disk(tmp_path / "saved")
    assert plain(read_conversations(f"{tmp_path}/saved:test")) == GOOD[2:]
    with pytest.raises(UserError, match=r"saved: has no split 'tset'; did you mean 'test'\? \(it has: train, test\)$"):
        read_conversations(f"{tmp_path}/saved:tset")


def test_several_files_and_where(tmp_path):
    """Catches files read out of order, blank lines that shift line numbers, and a BOM taken for content."""
    first, second = tmp_path / "a.jsonl", write(tmp_path / "b.jsonl", ["", json.dumps(GOOD[2])])
    first.write_text("\ufeff" + json.dumps(GOOD[0]) + "\r\n\r\n" + json.dumps(GOOD[1]), encoding="utf-8")
    read = read_conversations([first, str(second)], domains=["math", "code", "text"])
    assert plain(read) == GOOD
    assert [one.where for one in read] == [f"{first} line 1", f"{first} line 3", f"{second} line 2"]


def test_short_form(tmp_path):
    """Catches prompt and response swapped, and other fields of a record taken for messages."""
    path = write(tmp_path / "a.jsonl", [{"id": 3, "domain": "math", "prompt": "2 + 2?", "response": "4", "messages": None}])
    messages = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
    assert read_conversations(path) == [Conversation("math", messages, f"{path} line 1")]


USER, ASSISTANT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
SYSTEM = {"role": "system", "content": "s"}


def text(*messages):
    return {"domain": "text", "messages": list(messages)}


BAD = {
    "broken": (
        '{"domain": "text" ',
        r"line 2: is not valid JSON \([^()]* at character 18\): '\{\"domain\": \"text\"'; one object a line",
    ),
    "no end": ('{"domain": "text",\r', r"line 2: is not valid JSON \([^()]* at character 1[89]\): '"),
    "long number": (
        '{"domain": "text", "n": ' + "1" * 5000 + "}",
        r"line 2: is not valid JSON \(a number has too many digits\): '\{\"domain\": \"text\", ",
    ),
    "nested": ("[" * 100_000, r"line 2: is not valid JSON \(nested too deeply\): '\[\[.*\[\.\.\."),
    "array": ("[1, 2]", r"line 2: is \[1, 2\], not an object; expected"),
    "no domain": ({"messages": [USER, ASSISTANT]}, r"line 2: has no 'domain'"),
    "odd domain": ({"domain": 3}, r"line 2: 'domain' is 3; it must be a non-empty string"),
    "unknown domain": (
        chat("q", "a", domain="maths"),
        r"domain 'maths' in .*a\.jsonl line 2 is not one of text, code, math; did you mean 'math'\?",
    ),
    "no messages": ({"domain": "text", "chat": 1}, r"line 2: has no 'messages' \(keys: domain, chat\)"),
    "empty messages": (text(), r"line 2: 'messages' is \[\]; it must be a list with at least one"),
    "messages of another kind": ({"domain": "text", "messages": "hi"}, r"line 2: 'messages' is 'hi'; it must be a list"),
    "no response field": ({"domain": "text", "prompt": "q"}, r"line 2: has no 'response'"),
    "message of another kind": (text("q", "a"), r"line 2 message 1: is 'q', not an object"),
    "unknown role": (text({"role": "asistant", "content": "x"}), r"message 1: role 'asistant' is not one .* mean 'assistant'"),
    "role of another kind": (text({"role": ["user"], "content": "x"}), r"message 1: role \['user'\] is not one of"),
    "no content": (text({"role": "user"}), r"message 1: the user's content is None"),
    "empty answer": (text(USER, {"role": "assistant", "content": " \n"}), r"message 2: the assistant's content is ' \\n'"),
    "half a character": (
        text({"role": "user", "content": "ab\ud800"}),
        r"message 1: the user's content is not valid Unicode .* 2",
    ),
    "two users": (text(USER, USER, ASSISTANT), r"message 2: is the user's where the assistant's must be"),
    "answer first": (text(ASSISTANT, USER), r"message 1: is the assistant's where the user's must be"),
    "late system": (text(USER, ASSISTANT, SYSTEM, USER, ASSISTANT), r"message 3: is the system's where the user's must be"),
    "two systems": (text(SYSTEM, SYSTEM, USER, ASSISTANT), r"message 2: is the system's where the user's must be"),
    "ends with user": (text(USER, ASSISTANT, USER), r"line 2: has no response, the last message is the user's"),
    "only system": (text(SYSTEM), r"line 2: has no response, the last message is the system's"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_lines(case, tmp_path):
    """Catches a mistake that is let through, crashes, or is reported without its place, its value or on several lines."""
    record, message = BAD[case]
    path = write(tmp_path / "a.jsonl", [GOOD[0], record, *GOOD[1:]])
    with pytest.raises(UserError, match=message) as caught:
        read_conversations(path, domains=["text", "code", "math"])
    assert f"{path} line 2" in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < len(str(path)) + 300


def test_further_bad_lines_are_counted(tmp_path):
    """Catches the last bad line reported in place of the first."""
    path = write(tmp_path / "a.jsonl", ["{", GOOD[0], "[]", "3"])
    with pytest.raises(UserError, match=r"line 1: .* \(and 2 more bad lines\)$"):
        read_conversations(path)
    with pytest.raises(UserError, match=r"line 1: .* \(and 1 more bad line\)$"):
        read_conversations(write(tmp_path / "b.jsonl", ["{", GOOD[0], "[]"]))


@pytest.mark.parametrize("name", ["one.json", "one.jsonl"])
@pytest.mark.parametrize("indent", [None, 2])
def test_one_array_is_told(name, indent, tmp_path):
    """Catches a whole file in one array, the other common layout, told as if its first line were broken."""
    path = tmp_path / name
    path.write_text("\ufeff" * (indent is None) + json.dumps(GOOD, indent=indent), encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(f"{path}: this is one array; write one object a line")):
        read_conversations(path)


@pytest.mark.parametrize("place", ["~nosuchuser/a.jsonl", "x" * 300 + ".jsonl", "x" * 300 + "/a.jsonl", "x" * 300])
def test_what_can_be_no_file(place):
    """Catches a traceback for the home of nobody and for what is too long to be a name."""
    with pytest.raises(UserError, match=f"^{place}: (no such file or directory$|cannot be loaded as a dataset)") as caught:
        read_conversations(place)
    assert "\n" not in str(caught.value)
    assert str(local_path(f"{place}:test")) == place


def test_domain_without_example(tmp_path):
    """Catches a domain that no file holds: the sampler could never balance it."""
    one, two = write(tmp_path / "a.jsonl", GOOD[:1]), write(tmp_path / "b.jsonl", [GOOD[2], GOOD[0]])
    message = r"a\.jsonl, .*b\.jsonl: domain 'math' has no example \(found: text 2, code 1\); add some"
    with pytest.raises(UserError, match=message):
        read_conversations([one, two], domains=["code", "math", "text"])


def test_bad_files(tmp_path):
    """Catches a traceback for a file that is missing, misnamed, empty, cut off or of another kind."""
    write(tmp_path / "train.jsonl", GOOD)
    (tmp_path / "empty.jsonl").write_text("\n\n")
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not at all")
    whole = gzip.compress("".join(json.dumps(record) + "\n" for record in GOOD * 50).encode())
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "plain.jsonl.gz").write_text("{}")
    (tmp_path / "latin.jsonl").write_bytes(b'{"domain": "caf\xe9"}\n')
    for name, message in {
        "trian.jsonl": r"no such file or directory; did you mean 'train\.jsonl'\?",
        "nothing": r"no such file or directory",
        "train.jsonl:train": r"a file has no splits; give .*train\.jsonl$",
        "empty.jsonl": r"holds no conversation",
        "a.txt": r"unknown kind of data file; give one that ends in \.jsonl",
        "a.parquet": r"cannot be read as Parquet",
        "cut.jsonl.gz": r"cannot be read .* is the file complete\?",
        "plain.jsonl.gz": r"cannot be read .* is the file complete\?",
        "latin.jsonl": r"line 1: is not valid JSON \(byte 16 is not UTF-8\)",
    }.items():
        with pytest.raises(UserError, match=re.escape(str(tmp_path / name)) + ".*" + message) as caught:
            read_conversations(tmp_path / name)
        assert "\n" not in str(caught.value)
        with pytest.raises(UserError, match=message):
            read_conversations(str(tmp_path / name))
