"""The review driven by scripted input and by keys in a pseudo-terminal: what is shown, kept, taken back and respected."""

from __future__ import annotations

import io
import os
import select
import sys
from pathlib import Path

import pytest
from rich.console import Console
from synth_world import make_recipe, run, tables
from typer.testing import CliRunner

from ultrafuser.cli import app
from ultrafuser.endpoints.store import AnswerStore
from ultrafuser.errors import UserError
from ultrafuser.synth.edit import edited, from_sheet, to_sheet
from ultrafuser.synth.keyboard import Lines, Terminal
from ultrafuser.synth.record import REJECTED, Decision
from ultrafuser.synth.review import review
from ultrafuser.synth.state import State

DOMAIN = {"text": {"meta_topics": 2, "sub_topics": 4, "instructions": 20}}
TOPICS = 2 + 4


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a small finished synthesis."""
    recipe = make_recipe(tmp_path_factory.mktemp("review") / "out", domains=DOMAIN)
    run(recipe)
    return recipe.store


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    """A copy to decide about."""
    copy = tmp_path / "out" / "answers.sqlite"
    copy.parent.mkdir()
    with AnswerStore(made) as opened:
        opened.connection.execute("VACUUM INTO ?", [str(copy)])
    return copy


def drive(store: Path, typed: str, **options: object) -> tuple[dict[str, int], str]:
    """Type one word a line; returns what was done and what was shown."""
    console = Console(file=io.StringIO(), width=100, force_terminal=False)
    done = review(store, Lines(io.StringIO(typed.replace(" ", "\n") + "\n"), console), console, **options)  # type: ignore[arg-type]
    return dict(done), console.file.getvalue()  # type: ignore[attr-defined]


def decisions(store: Path) -> list[Decision]:
    with AnswerStore(store, read_only=True) as opened:
        return list(State(opened).decisions().values())


def test_everything_is_shown_once(store: Path) -> None:
    """Catches topics or samples left out, and decided ones shown again."""
    done, text = drive(store, "a " * 100, samples=2)
    assert done == {"accept": TOPICS + 4 * 2} and len(decisions(store)) == TOPICS + 8
    assert text.count("main topic text/") == 2 and text.count("sub-topic text/") == 4 and text.count("conversation text/") == 8
    assert text.index("main topic text/000") < text.index("sub-topic text/000/000") < text.index("main topic text/001")
    assert drive(store, "a " * 100, samples=2) == ({}, "")


def test_other_commands_while_a_review_is_open(tmp_path: Path) -> None:
    """Catches a traceback, or a line that does not say why, from what needs the store too; what only reads goes on."""
    recipe = make_recipe(tmp_path / "out", domains=DOMAIN)
    run(recipe)
    typed = {"run": ["synth", str(tmp_path / "out.yaml")], "review": ["synth", "review", str(tmp_path / "out")]}
    results = {}

    class Looking(Lines):
        def key(self) -> str:
            for name, args in (typed | {"dry run": [*typed["run"], "--dry-run"]}).items():
                results[name] = CliRunner().invoke(app, args)
            return "q"

    console = Console(file=io.StringIO())
    review(recipe.store, Looking(io.StringIO(), console), console)
    for name in typed:
        assert results[name].exit_code == 2 and results[name].stderr.count("\n") == 1, results[name].output
        assert results[name].stderr.startswith(f"error: {recipe.store}: is in use by another process; wait for it")
    assert results["dry run"].exit_code == 0


def test_skipping_and_quitting_decide_nothing(store: Path) -> None:
    """Catches a decision made by a key that makes none, or at the end of the input."""
    assert drive(store, "s s q a a")[0] == {} and decisions(store) == []
    assert drive(store, "")[0] == {} and decisions(store) == []
    assert drive(store, "x ? s q")[1].count("undo: take back") == 2


def test_rejecting_a_topic_passes_over_what_is_below(store: Path) -> None:
    """Catches work on what is gone anyway; the note is kept."""
    done, text = drive(store, "r too-vague " + "s " * 100, samples=2)
    assert done == {"reject": 1} and "text/000/" not in text.replace("main topic text/000", "")
    (decision,) = decisions(store)
    assert (decision.subject, decision.action, decision.note) == ("topic", "reject", "too-vague")
    assert "text/000" not in drive(store, "s " * 100)[1]


def test_undo(store: Path) -> None:
    """Catches a decision that stays, the wrong one taken back, and a subject that is lost on the way."""
    done, text = drive(store, "u r no u a a u u s q")
    assert text.count("nothing to undo") == 1 and done == {} and decisions(store) == []
    shown = [text.count(f"topic {id} ") for id in ("text/000", "text/001", "text/000/000", "text/000/001")]
    assert shown == [4, 1, 3, 1]
    drive(store, "a r no u r no q")
    assert sorted(decision.action for decision in decisions(store)) == ["accept", "reject"]


def test_straight_to_the_samples(store: Path) -> None:
    """Catches `n` showing more topics, and lowest scores not coming first."""
    with AnswerStore(store) as opened:
        state = State(opened)
        items = list(state.items("accepted", below="text/000/000"))
        for score, item in enumerate(reversed(items)):
            item.provenance["score"] = {"score": score + 1, "reason": "so"}
        state.save_items(items)
    _, text = drive(store, "n q")
    assert text.count("topic text/") == 1 and f"conversation {items[-1].id}" in text and "score 1: so" in text


def test_editing_line_by_line(store: Path) -> None:
    """Catches unchanged parts stored as changes, and an edit without a change taken for one."""
    done, text = drive(store, "e New-name \n\n e \n\n\n s q".replace(" \n", "\n"))
    assert done == {"edit": 1} and "nothing was changed" in text
    assert decisions(store)[0].text == {"name": "New-name"}


def test_editing_says_what_becomes_of_further_turns(store: Path) -> None:
    """Catches turns that vanish without a word, and a warning where there are none; prompts have lines of their own."""
    typed, warning = "n e \n\n q", "drops the turns after the first response"
    for turns in ([], [{"role": "user", "content": "More?"}, {"role": "assistant", "content": "Yes."}]):
        with AnswerStore(store) as opened:
            state = State(opened)
            items = list(state.items("accepted"))
            for item in items:
                item.further = turns
            state.save_items(items)
        text = drive(store, typed)[1]
        assert (warning in text) == bool(turns)
        assert "\nresponse (empty" in text
    assert drive(store, "? q")[1].count("turns after the first response are") == 1


def test_below_a_topic(store: Path) -> None:
    """Catches the restriction ignored, and a mistyped topic that would show nothing at all."""
    text = drive(store, "s " * 100, below="text/001")[1]
    assert "text/001/000" in text and "text/000/" not in text
    with pytest.raises(UserError, match="'txt' is no domain or main topic"):
        drive(store, "s", below="txt")


def test_the_next_run_respects_it(tmp_path: Path) -> None:
    """Catches decisions that nobody carries out: a rejected sample is replaced, an edited one says what was typed."""
    recipe = make_recipe(tmp_path / "out", domains=DOMAIN)
    run(recipe)
    typed = "n\nr\nbad\ne\nA better instruction, written by hand.\nA better response, too.\nq\n"
    console = Console(file=io.StringIO())
    assert review(recipe.store, Lines(io.StringIO(typed), console), console) == {"reject": 1, "edit": 1}
    run(recipe)
    items = tables(recipe)["items"]
    assert sum(item["status"] == "accepted" for item in items) == 20
    assert [item["reason"] for item in items].count(REJECTED) == 1
    assert [item["response"] for item in items if "by hand" in item["instruction"]] == ["A better response, too."]


def test_sheet_of_the_editor() -> None:
    """Catches texts mixed up or changed on their way through the editor."""
    texts = {"instruction": "a\n\n===== not a head\nb", "response": "```\nx\n```"}
    assert from_sheet(to_sheet(texts)) == texts


def test_editor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Catches an editor with options that is not found, and a traceback where it fails."""
    script = tmp_path / "my editor.py"
    script.write_text("import sys; f = open(sys.argv[2], 'r+'); t = f.read().replace(sys.argv[1], 'new'); f.seek(0); f.write(t)")
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"'{sys.executable}' '{script}' old")
    keys = Terminal(Console(file=io.StringIO()))
    assert edited({"instruction": "the old one", "response": "same"}, keys) == {"instruction": "the new one"}
    monkeypatch.setenv("EDITOR", "no-such-editor")
    with pytest.raises(UserError, match="'no-such-editor' failed"):
        edited({"instruction": "x"}, keys)


def read_until(terminal: int, expected: bytes) -> bytes:
    """What the other end of a pseudo-terminal shows, up to and with ``expected``."""
    shown = b""
    while expected not in shown:
        ready, _, _ = select.select([terminal], [], [], 60)
        assert ready, shown
        shown += os.read(terminal, 1)
    return shown


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_single_keys_in_a_terminal(store: Path) -> None:
    """Catches keys that need Return, an echo that garbles the screen, and a terminal left without one."""
    import pty

    code = (
        "import sys; from pathlib import Path; from rich.console import Console\n"
        "from ultrafuser.synth.keyboard import keyboard; from ultrafuser.synth.review import review\n"
        "console = Console(); print('done', dict(review(Path(sys.argv[1]), keyboard(console), console)))"
    )
    child, terminal = pty.fork()
    if not child:
        os.execve(sys.executable, [sys.executable, "-c", code, str(store)], os.environ | {"ULTRAFUSER_WITHOUT_MODELS": "1"})
    shown = b""
    for expected, typed in ((b" quit", b"a"), (b" quit", b"s"), (b" quit", b"r"), (b"Why?", b"unclear\n"), (b" quit", b"q")):
        shown += read_until(terminal, expected)
        os.write(terminal, typed)
    shown += read_until(terminal, b"done {'accept': 1, 'reject': 1}")
    assert os.waitpid(child, 0)[1] == 0 and b"asr" not in shown
    assert {decision.note for decision in decisions(store)} == {"", "unclear"}
