"""The command line: what was typed arrives where it should, and mistakes are one line on stderr with exit code 2."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
from typer import Option, Typer
from typer.main import get_command
from typer.testing import CliRunner, Result

from tiny import tiny_specialist, tiny_tokenizer
from ultrafuser.cli import app, main, values
from ultrafuser.cli.groups import grouped
from ultrafuser.errors import UserError
from ultrafuser.model.load import load
from ultrafuser.run.generate import Decoding, answer, encode
from ultrafuser.train.stage import PAPER_STAGES, Stage

COMMANDS = ("check", "fuse", "extract", "decontaminate", "train", "run", "eval", "synth", "generate", "chat", "inspect", "demo")


def ultrafuser(*args: str, stdin: str = "") -> Result:
    return CliRunner().invoke(app, list(args), input=stdin)


def mistake(*args: str) -> str:
    """The one line that a mistake is told in."""
    result = ultrafuser(*args)
    assert result.exit_code == 2, result.output
    assert result.stdout == "" and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.output
    return result.stderr.removeprefix("error: ").rstrip("\n")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_specialist(tmp_path_factory.mktemp("model"), template="inst")


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str) -> None:
    """Catches a command without help or example, and one that needs something heavy to print it."""
    result = ultrafuser(command, "--help")
    assert result.exit_code == 0 and f"Example: ultrafuser {command}" in " ".join(result.stdout.split())


def test_help_is_quick_and_complete() -> None:
    """Catches an import of torch on the way to the table of commands, which would cost seconds, and a command left out of it."""
    code = "import sys; from ultrafuser.cli import app\ntry: app([])\nexcept SystemExit as end: code = end.code\n"
    code = "import sys; sys.argv = ['ultrafuser']\n" + code
    check = "print(code, [name for name in ('torch', 'transformers', 'matplotlib') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code + check], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
    assert all(f"│ {command} " in done.stdout for command in COMMANDS)


@pytest.mark.parametrize("module", ["ultrafuser", "ultrafuser.cli"])
def test_modules_are_as_quick_as_the_script(module: str) -> None:
    """Catches an import of torch before a command needs it where a launcher starts the module, also after other options."""
    for options in (["-m", module, "--version"], ["-u", "-m", module, "run", "miniworld", "-m"]):
        done = subprocess.run([sys.executable, "-X", "importtime", *options], capture_output=True, text=True, check=False)
        imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert "ultrafuser.cli" in imported and not imported & {"torch", "transformers", "numpy"}


def test_library_use_registers_the_models() -> None:
    """Catches a program taken for the command line: for all others `import ultrafuser` must make the Auto classes know it."""
    code = "import ultrafuser, transformers; transformers.AutoConfig.for_model('ultrafuser')"
    subprocess.run([sys.executable, "-c", code, "-m", "ultrafuser.cli"], check=True)


def test_script(tmp_path: Path) -> None:
    """Catches an installed script that prints a traceback or exits otherwise than the commands called here."""
    script = str(Path(sys.executable).with_name("ultrafuser"))
    done = subprocess.run([script, "run", str(tmp_path / "none.yaml")], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"error: {tmp_path / 'none.yaml'}: no such recipe; give a file or one of llama3.1-8b-24gb")


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ("fus", "No such command 'fus'. Did you mean 'fuse'?; see 'ultrafuser --help'"),
        ("fuse a b", "Missing option '--out'; see 'ultrafuser fuse --help'"),
        ("fuse", "Missing argument 'SPECIALIST..'; see 'ultrafuser fuse --help'"),
        ("fuse a b --out o --nams x", "No such option: --nams (Possible options: --names); see"),
        (
            "fuse a b --out o --gate-hidden-size many",
            "Invalid value for '--gate-hidden-size': 'many' must be a whole number; see",
        ),
        ("generate a b --load-in 5bit", "Invalid value for '--load-in': '5bit' is not one of '8bit', '4bit'; see"),
        ("eval a --tasks b --out c --dtype f", "Invalid value for '--dtype': 'f' is not one of 'auto', 'float32', "),
        ("chat a --temperature -1", "Invalid value for '--temperature': '-1' must be at least 0; see"),
        ("generate a b --top-p 2", "Invalid value for '--top-p': '2' must be at most 1.0; see"),
        ("fuse a b --out o --max-shard-size big", "--max-shard-size 'big' is not a size such as 5GB or 500MB"),
        ("fuse a b --out o --dtype int8", "Invalid value for '--dtype'"),
        ("fuse a b --out o --template c=alpaca", "--template c=alpaca: 'c' is not one of a, b"),
        ("fuse ./nowhere b --out o", "./nowhere: no such directory"),
        ("extract ./nowhere --specialist code --out o", "nowhere: "),
        ("train ./nowhere --data d.jsonl --out o", "nowhere: no such directory"),
        (
            "train ./nowhere --data d.jsonl --out o --moves gate,al",
            "--moves 'al' is not one of gate, lora, all; did you mean 'all'?",
        ),
        ("train ./nowhere --data d.jsonl --out o --steps 1,x", "--steps '1,x' is not a list of numbers"),
        ("train ./nowhere --data d.jsonl --out o --domains a,,b", "--domains 'a,,b': a value is empty; give them with single"),
        ("train ./nowhere --data d.jsonl --out o --steps 1,", "--steps '1,': a value is empty"),
        ("train ./nowhere --data d.jsonl --out o --report-to ,", "--report-to ',': a value is empty"),
        ("fuse a b --out o --names x,,y", "--names 'x,,y': a value is empty"),
        ("decontaminate d.jsonl --out o --against gsm8k,", "--against 'gsm8k,': a value is empty"),
        ("train ./nowhere --data d.jsonl --out o --steps 1,2,3", "--steps has 3 values for 2 stages (gate, all)"),
        ("train ./nowhere --data d.jsonl --out o --schedule cosin", "stage 'gate': --schedule 'cosin': must be 'cosine', "),
        ("train ./nowhere --data d.jsonl --out o --seed 2147483648", "Invalid value for '--seed'"),
        ("generate ./nowhere hi --seed 2147483648", "Invalid value for '--seed'"),
        ("run miniworld --dry-run seed=2147483648", "miniworld: seed=2147483648: must be at most 2147483647"),
        ("train ./nowhere --data d.jsonl --out o --learning-rate 1,0", "stage 'joint': --learning-rate 0.0: must be above 0"),
        ("run miniwrold", "miniwrold: no such recipe; did you mean 'miniworld'?"),
        ("run miniworld seed", "miniworld: override 'seed' is not of the form key.sub=value"),
        ("run miniworld dry_run=[", "miniworld: dry_run=[: is not valid YAML"),
        ("generate ./nowhere hi", "./nowhere: no such directory"),
        ("generate seed=3 hi", "seed=3: no such directory"),  # not `--seed 3`, which was not typed
        ("fuse out=a b --out o", "name 'out=a' is not valid"),
        ("chat ./nowhere", "./nowhere: no such directory"),
        ("inspect ./nowhere hi", "./nowhere: no such directory"),
        ("generate ./nowhere hi --device gpu9", "--device gpu9: no such kind of device"),
        ("generate ./nowhere hi --device cpu:3", "--device cpu:3: the highest number here is 0; give --device cpu:0"),
    ],
)
def test_mistakes(args: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a traceback, more than a line, another exit code, or something left behind for each of a user's mistakes."""
    monkeypatch.chdir(tmp_path)
    assert mistake(*args.split()).startswith(told)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "where"),
    [
        (["fuse", "a", "b", "--out", ""], "'--out'"),
        (["fuse", "a", "", "--out", "o"], "'SPECIALIST..'"),
        (["extract", "", "--specialist", "a", "--out", "o"], "'MODEL'"),
        (["train", "m", "--data", "d.jsonl", "--data", " ", "--out", "o"], "'--data'"),
        (["decontaminate", "d.jsonl", "--against", "gsm8k", "--out", "o.jsonl", "--data-dir="], "'--data-dir'"),
        (["eval", "m", "--tasks", "gsm8k", "--out", "o", "--template", ""], "'--template'"),
        (["inspect", "m", "hi", "--html", ""], "'--html'"),
        (["run", ""], "'RECIPE'"),
        (["synth", ""], "'RECIPE'"),
        (["synth", "report", "r", "--out", ""], "'--out'"),
        (["demo", "--out="], "'--out'"),
    ],
)
def test_empty_values(args: list[str], where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an empty text taken for the current directory, or for an option that was not given."""
    monkeypatch.chdir(tmp_path)
    assert mistake(*args).startswith(f"Invalid value for {where}: it is empty; give a value or leave it out; see 'ultrafuser")
    assert list(tmp_path.iterdir()) == []


def test_what_a_model_is_told_may_be_empty() -> None:
    """Catches an empty prompt or system message refused: they are texts, not names."""
    assert mistake("generate", "./nowhere", "", "--system", "").startswith("./nowhere: no such directory")


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        (
            "stage 'joint': moves: 'all' cannot be with load_in=4bit, which",
            "stage 'joint': --moves 'all' cannot be with --load-in 4bit, which",
        ),
        ("report_to: 'wandbb' is not one of wandb", "--report-to 'wandbb' is not one of wandb"),
        ("out: already exists", "out: already exists"),
        ("runs/seed=3: no such file", "runs/seed=3: no such file"),
        ("data.seed=3: must be", "data.seed=3: must be"),
        ("domain 'seed=3' is given twice", "domain 'seed=3' is given twice"),
    ],
)
def test_mistakes_name_options_as_they_are_typed(told: str, shown: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a Python argument or a key of a recipe told to a user of the command line, and a file taken for an option."""

    def refuse(*args: Any, **options: Any) -> None:
        raise UserError(told)

    monkeypatch.setattr("ultrafuser.train.run.train", refuse)
    assert mistake("train", "m", "--data", "d.jsonl", "--out", "out") == shown


@pytest.mark.parametrize("command", [*COMMANDS, "synth run", "synth report", "synth review"])
def test_help_tells_every_default(command: str) -> None:
    """Catches an option that can be left out without a word on what is then: all but switches, which are then off."""
    found: Any = get_command(app)
    for name in command.split():
        found = found.commands[name]
    for option in found.params:
        if option.param_type_name == "option" and not (option.required or option.is_flag) and option.name != "help":
            assert option.show_default is not False and (
                option.default not in (None, "") or isinstance(option.show_default, str)
            ), option.name


def test_stages_of_the_paper_are_the_defaults_shown() -> None:
    """Catches defaults in the help of `train` that are not those of the stages."""
    shown = " ".join(ultrafuser("train", "--help").stdout.split())
    for default in ("gate,all", "400,5000", "64,32", "2e-05", "cosine"):
        assert f"[default: ({default})]" in shown


@pytest.mark.parametrize("command", [*COMMANDS, "synth run", "synth report", "synth review"])
def test_no_arguments(command: str) -> None:
    """Catches a command that does something else than to say in one line what is missing; `demo` alone needs nothing."""
    if command != "demo":
        assert mistake(*command.split()).startswith("Missing argument '")


@dataclass(frozen=True)
class Eating:
    """What is eaten.

    Not shown.
    """

    fruit: Annotated[str, Option(help="Which fruit.")] = "apple"
    count: Annotated[int | None, Option(min=1)] = None


@dataclass(frozen=True)
class Drinking:
    """What is drunk."""

    hot: Annotated[bool, Option("--hot")] = False


def test_groups_are_their_options() -> None:
    """Catches an option of a group that help does not list, is lost on its way, or has another default than in Python."""
    table, seen = Typer(), []

    @table.command()
    @grouped
    def lunch(who: str, *, eating: Eating, drinking: Drinking) -> None:
        seen.append((who, eating, drinking))

    for typed in (["me"], ["--hot", "me", "--fruit", "pear", "--count", "2"]):
        assert CliRunner().invoke(table, typed).exit_code == 0
    assert seen == [("me", Eating(), Drinking()), ("me", Eating("pear", 2), Drinking(hot=True))]
    assert CliRunner().invoke(table, ["me", "--count", "0"]).exit_code == 2
    shown = CliRunner().invoke(table, ["--help"]).stdout
    title, own, other = (shown.index(text) for text in ("─ What is eaten ─", "Which fruit.", "─ What is drunk ─"))
    assert title < own < other < shown.index("--hot")


def test_check_says_why_not() -> None:
    """Catches a check that finds a problem and yet exits as if there were none."""
    result = ultrafuser("check", "./nowhere", "./there")
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("error: these cannot be fused: ./nowhere: ")


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
        (OSError(errno.ENOSPC, "No space left", "out/file"), 2, "error: out/file: the disk is full\n"),
        (UserError("two\n  lines"), 2, "error: two\n  lines\n"),
    ],
)
def test_what_stops_a_command(raised: BaseException, code: int, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches Ctrl-C, a full disk or a recipe's list of mistakes told as a traceback or with another exit code."""

    def stop(*args: Any, **options: Any) -> None:
        raise raised

    monkeypatch.setattr("ultrafuser.model.extract.extract", stop)
    result = ultrafuser("extract", "fused", "--specialist", "code", "--out", "code")
    assert (result.exit_code, result.stderr) == (code, told)


def test_a_fault_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a net so wide that a bug looks like a user's mistake."""
    monkeypatch.setattr("ultrafuser.model.extract.extract", lambda *args, **options: 1 / 0)
    assert isinstance(ultrafuser("extract", "fused", "--specialist", "a", "--out", "b").exception, ZeroDivisionError)


class Recorder:
    """Stands for a function and keeps what it is called with."""

    def __init__(self) -> None:
        self.args: tuple[Any, ...] = ()
        self.options: dict[str, Any] = {}

    def __call__(self, *args: Any, **options: Any) -> str:
        self.args, self.options = args, options
        return "out"


def test_options_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches an option that is dropped or goes to another parameter."""
    train, fuse, run, demo = Recorder(), Recorder(), Recorder(), Recorder()
    monkeypatch.setattr("ultrafuser.train.run.train", train)
    monkeypatch.setattr("ultrafuser.model.fuse.fuse", fuse)
    monkeypatch.setattr("ultrafuser.run.recipe.run_recipe", run)
    monkeypatch.setattr("ultrafuser.run.demo.run_demo", demo)

    typed = "train f --data a.jsonl --data b.jsonl --out o --steps 3,0 --per-domain 2 --learning-rate 1e-3,1e-4 --seed 5"
    more = "--domains x,y --max-length 9 --load-in 4bit --micro-batch-size 3 --report-to wandb,comet --keep-stages --overwrite"
    assert ultrafuser(*typed.split(), *more.split()).stdout == "wrote out\n"
    assert train.args == (Path("f"), ["a.jsonl", "b.jsonl"], Path("o"))
    assert train.options["stages"] == [
        Stage("gate", moves="gate", steps=3, per_domain=2, learning_rate=1e-3),
        Stage("joint", moves="all", steps=0, per_domain=2, learning_rate=1e-4),
    ]
    settings = train.options["settings"]
    assert train.options["domains"] == ["x", "y"] and (settings.seed, settings.max_length, settings.load_in) == (5, 9, "4bit")
    assert settings.report_to == ("wandb", "comet") and settings.micro_batch_size == 3
    assert settings.keep_stages and settings.overwrite

    typed = "fuse p/text p/code --out o --template code=alpaca --gate-hidden-size 8 --dtype float16 --seed 3 --overwrite"
    assert ultrafuser(*typed.split(), "--max-shard-size", "1MB").exit_code == 0
    assert fuse.args == (["p/text", "p/code"], Path("o")) and fuse.options["names"] == ["text", "code"]
    options = fuse.options["options"]
    assert (list(options.templates), options.gate_hidden_size, options.dtype) == (["own", "alpaca"], 8, "float16")
    assert options.seed == 3 and options.overwrite and options.max_shard_size == 1_000_000

    assert ultrafuser("run", "miniworld", "seed=4", "train.stages.0.steps=1", "--dry-run").exit_code == 0
    assert run.args[0].seed == 4 and run.args[0].train.stages[0].steps == 1
    assert run.options == {"dry_run": True, "overwrite": False}

    assert ultrafuser("demo", "--out", "o", "--seed", "2", "--fast").exit_code == 0
    assert demo.args == (Path("o"),) and demo.options == {"seed": 2, "fast": True, "overwrite": False}


def test_stages() -> None:
    """Catches defaults that are not the paper's, and two stages of one name."""
    assert values.stages_for(None, steps=None) == list(PAPER_STAGES)
    assert [stage.name for stage in values.stages_for("gate,all,all")] == ["gate", "joint-1", "joint-2"]
    assert values.stages_for("lora", steps=[5]) == [Stage("lora", moves="lora", steps=5, per_domain=32)]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], None),
        (["own"], None),
        (["chatml"], ["chatml", "chatml"]),
        (["common:chatml"], ["chatml", "chatml"]),
        (["b=alpaca"], ["own", "alpaca"]),
        (["b=x.jinja", "a=own"], ["own", "x.jinja"]),
        (["chatml", "b=alpaca"], "--template chatml: with several give NAME=TEMPLATE, with one of the names a, b"),
        (["b=alpaca", "b=chatml"], "--template b=chatml: 'b' has a template already; give one each"),
    ],
)
def test_templates(given: list[str], expected: list[str] | str | None) -> None:
    """Catches a template that goes to another specialist than the one named."""
    if isinstance(expected, str):
        with pytest.raises(UserError) as caught:
            values.templates_for(given, ["a", "b"])
        assert str(caught.value) == expected
    else:
        assert values.templates_for(given, ["a", "b"]) == expected


def greedy(folder: Path, messages: list[dict[str, str]], tokens: int) -> str:
    """The slow reference: one token at a time, no cache, the prompt as the chat template renders it."""
    model, tokenizer = load(folder)
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    start = len(ids)
    with torch.inference_mode():
        while len(ids) < start + tokens and (len(ids) == start or ids[-1] != tokenizer.eos_token_id):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return str(tokenizer.decode(ids[start:], skip_special_tokens=True))


def ask(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[place % 2], "content": content} for place, content in enumerate(contents)]


def test_generate(model: Path) -> None:
    """Catches an answer that is not greedy, has lost or repeated words in streaming, or answers another prompt."""
    result = ultrafuser("generate", str(model), "12 and 30?", "--temperature", "0", "--max-new-tokens", "12")
    assert result.exit_code == 0, result.output
    assert result.stdout == greedy(model, ask("12 and 30?"), 12) + "\n"


@pytest.mark.parametrize("template", ["inst", "{{ messages[0]['content'] }}", None], ids=["pieces", "no pieces", "no template"])
def test_a_prompt_that_is_not_unicode(template: str | None, tmp_path: Path) -> None:
    """Catches a traceback for bytes of another encoding, however a tokenizer encodes, and a chat that ends with them."""
    path = tiny_specialist(tmp_path / "model", template=template or "inst")
    if template is None:
        (path / "chat_template.jinja").unlink()
    assert mistake("generate", str(path), "caf\udce9") == "the user's message is not valid Unicode (surrogates not allowed at 3)"
    loaded, tokenizer = load(path)
    with pytest.raises(UserError, match="not valid Unicode"):
        answer(loaded, tokenizer, ask("caf\udce9"), Decoding(1), lambda text: None)


def test_a_page_replaces_nothing_of_the_model(model: Path) -> None:
    """Catches `inspect --overwrite` that writes its page over a file of the model it reads, or beside one."""
    config = model / "config.json"
    before = config.read_bytes()
    told = mistake("inspect", str(model), "12", "--html", str(config), "--overwrite")
    assert told.startswith(f"{config}: lies in {model}, which is read from") and config.read_bytes() == before
    files = sorted(model.iterdir())
    assert "which is read from" in mistake("inspect", str(model), "12", "--html", str(model / "new.html"), "--overwrite")
    assert sorted(model.iterdir()) == files


def test_sampling_is_repeatable(model: Path) -> None:
    """Catches a seed, temperature or top_p that does nothing."""
    loaded, tokenizer = load(model)

    def said(**options: Any) -> str:
        return answer(loaded, tokenizer, ask("12"), Decoding(max_new_tokens=16, **options), lambda text: None).text

    assert said(temperature=2.0, seed=1) == said(temperature=2.0, seed=1) != said(temperature=2.0, seed=2)
    assert said(temperature=2.0, top_p=1e-6, seed=2) == said(temperature=0) == said(temperature=1e-320)


def test_chat_keeps_and_forgets(model: Path) -> None:
    """Catches a history that loses a turn, is not forgotten on /reset, or takes a mistyped or spaced command for a question."""
    first = greedy(model, ask("12"), 6)
    second = greedy(model, ask("12", first.strip() or "…", "30"), 6)
    typed = "12\n30\n/rest\n /reset\n12\n/quit \nnever read\n"
    result = ultrafuser("chat", str(model), "--temperature", "0", "--max-new-tokens", "6", stdin=typed)
    assert result.exit_code == 0 and result.stdout == f"{first}\n{second}\n{first}\n"
    assert "did you mean '/reset'?" in result.stderr


def test_chat_forgets_what_no_longer_fits(tmp_path: Path) -> None:
    """Catches a chat that ends, or answers beyond the model's positions, when it has become too long."""
    short = tiny_specialist(tmp_path / "short", template="inst", max_position_embeddings=64)
    result = ultrafuser("chat", str(short), "--max-new-tokens", "16", stdin="12 and 30?\n" * 4 + "far too long " * 40 + "\n")
    assert result.exit_code == 0
    assert "earlier messages no longer fit" in result.stderr and "error: the prompt has" in result.stderr


def test_answer_ends_with_the_positions(tmp_path: Path) -> None:
    """Catches a small model that refuses every prompt, or answers beyond its positions, because the default answer is longer."""
    short = tiny_specialist(tmp_path / "short", template="inst", max_position_embeddings=32)
    loaded, tokenizer = load(short)
    said = answer(loaded, tokenizer, ask("12"), Decoding(max_new_tokens=512, temperature=0), lambda text: None)
    room = 32 - len(encode(tokenizer, ask("12")))
    assert said.text == greedy(short, ask("12"), room)
    assert said.note == f"cut off after {room} tokens; this model has 32 positions"


def test_interrupted_answer_is_kept(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a Ctrl-C in chat that loses what was said: the words so far are the answer."""
    loaded, tokenizer = load(model)
    words: list[str] = []

    def write(text: str) -> None:
        words.append(text)
        raise KeyboardInterrupt

    said = answer(loaded, tokenizer, ask("12"), Decoding(max_new_tokens=64, temperature=0), write)
    assert said.interrupted and words == [said.text] and greedy(model, ask("12"), 64).startswith(said.text)


def test_answers_that_were_cut_off_are_told(model: Path) -> None:
    """Catches an answer cut off in silence, a note among the answer's own text, and one about an answer that is whole."""
    result = ultrafuser("generate", str(model), "12", "--temperature", "0", "--max-new-tokens", "3")
    assert result.stdout == greedy(model, ask("12"), 3) + "\n"
    assert result.stderr.splitlines()[-1] == "note: cut off after 3 tokens; give --max-new-tokens more"
    assert "note: cut off after 1 token; " in ultrafuser("chat", str(model), "--max-new-tokens", "1", stdin="12\n").stderr
    loaded, tokenizer = load(model)
    with torch.inference_mode():
        first = int(loaded(input_ids=torch.tensor([encode(tokenizer, ask("12"))])).logits[0, -1].argmax())
    for end, cut in ((first, False), ([first + 1, first], False), (first + 1, True)):
        loaded.generation_config.eos_token_id = end
        said = answer(loaded, tokenizer, ask("12"), Decoding(max_new_tokens=1, temperature=0), lambda text: None)
        assert bool(said.note) == cut


def test_an_interrupted_answer_ends_the_command(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    """Catches a Ctrl-C that only ends the answer: `generate` must exit as every interrupted command does, on a new line."""

    def stop(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ultrafuser.run.generate.Telling.on_finalized_text", stop)
    result = ultrafuser("generate", str(model), "12")
    assert (result.exit_code, result.stdout) == (130, "\n") and result.stderr.endswith("error: interrupted\n")


def test_models_that_cannot_be_used(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a traceback for a directory that holds no model, a broken one, a plain one to inspect, or none that can chat."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert mistake("generate", "empty", "hi") == "empty: no config.json; give the directory of a model"
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"model_type": "llama"}')
    assert mistake("generate", "broken", "hi").startswith("broken: cannot be loaded (")
    assert mistake("generate", "brokn", "hi") == "brokn: no such directory; did you mean 'broken'?"
    assert "has no specialists to show" in mistake("inspect", str(model), "hi")
    bare = tiny_tokenizer()
    bare.chat_template = None
    tiny_specialist(tmp_path / "bare", tokenizer=bare)
    assert mistake("chat", "bare").startswith("this model has no chat template; use 'ultrafuser generate'")
    assert encode(bare, ask("12")) == bare("12")["input_ids"]


def test_pickled_weights_are_not_loaded(tmp_path: Path) -> None:
    """Catches weights that can run code when loaded, by a command that does not fuse."""
    folder = tiny_specialist(tmp_path / "pickled")
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert "its weights are pickled (pytorch_model.bin), which can run code when loaded" in mistake("generate", str(folder), "hi")


def test_page_of_inspect_is_looked_at_first(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches a page that is overwritten unasked, or a place found impossible only after the answer is made."""
    monkeypatch.setattr("ultrafuser.model.load.load", lambda *args, **options: (None, None))
    monkeypatch.setattr("ultrafuser.analyse.inspect.inspect_prompt", lambda *args, html, **options: html.write_text("new"))
    page = tmp_path / "none" / "page.html"
    assert ultrafuser("inspect", str(model), "hi", "--html", str(page)).exit_code == 0 and page.read_text() == "new"
    monkeypatch.setattr("ultrafuser.model.load.load", None)
    assert mistake("inspect", "m", "hi", "--html", str(page)).endswith("give --overwrite")
    assert mistake("inspect", "m", "hi", "--html", str(tmp_path), "--overwrite").startswith(f"{tmp_path}: is ")


def test_ctrl_c_before_a_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Catches a traceback when Ctrl-C comes while the table of commands is being built."""

    def stop(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("typer.main.get_command", stop)
    with pytest.raises(SystemExit) as ended:
        main()
    assert (ended.value.code, capsys.readouterr().err) == (130, "error: interrupted\n")


def test_ctrl_c_while_python_imports(tmp_path: Path) -> None:
    """Catches a traceback when Ctrl-C comes before there is anything that could tell it."""
    (tmp_path / "typer.py").write_text("raise KeyboardInterrupt")
    script = str(Path(sys.executable).with_name("ultrafuser"))
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")
