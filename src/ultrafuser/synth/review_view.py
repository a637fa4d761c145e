"""How topics, items and keys look in the terminal."""

from __future__ import annotations

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.rule import Rule
from rich.text import Text

from ultrafuser.pages.palette import clean
from ultrafuser.synth.record import Item, Topic

KEYS = {"a": "accept", "e": "edit", "r": "reject", "s": "skip", "u": "undo", "n": "on to the samples", "q": "quit"}
HELP = """\
accept: keep it, do not show it again
edit: change the texts, in $EDITOR or line by line; turns after the first response are then dropped
reject: the next run replaces it, and with a topic all that is below it
skip: decide nothing · undo: take back the last decision · quit: what was decided is kept"""
ROLES = {"user": "instruction", "assistant": "response"}


def show_topic(console: Console, topic: Topic) -> None:
    """A topic with its reason to be."""
    kind = "main topic" if topic.level == "meta_topic" else "sub-topic"
    lines = [Text(clean(topic.name), "bold")]
    lines += [Text(f"{label}: {clean(text)}") for label, text in (("why", topic.why), ("use", topic.use)) if text]
    console.print(_head(topic.id, kind), Panel(Group(*lines)))


def show_item(console: Console, item: Item) -> None:
    """A conversation, with where it comes from and how it was scored."""
    score = item.provenance.get("score", {})
    about = [f"{item.meta_topic} > {item.sub_topic}", item.kind, *item.traits.values()]
    if score:
        about.append(f"score {score.get('score')}: {score.get('reason', '')}")
    parts: list[RenderableType] = [_head(item.id, "conversation"), Text(clean(" · ".join(about)), "dim")]
    if item.original:
        parts.append(Panel(Text(clean(item.original)), title="before it was made more complex", title_align="left", style="dim"))
    for turn in item.turns:
        color = "cyan" if turn["role"] == "user" else "green"
        parts.append(Panel(Text(clean(turn["content"])), title=ROLES[turn["role"]], title_align="left", border_style=color))
    console.print(*parts, sep="\n")


def show_keys(console: Console, *, topics: bool) -> None:
    """One line with what can be pressed."""
    line = Text()
    for key, name in KEYS.items():
        if key != "n" or topics:
            line.append(key, "bold").append(f" {name}   ")
    console.print(line)


def show_help(console: Console) -> None:
    """What the keys mean."""
    console.print(Text(HELP, "dim"))


def _head(id: str, kind: str) -> Rule:
    return Rule(Text(f"{kind} {id}"), align="left")
