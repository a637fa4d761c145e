"""Turns what was typed into what the functions take: lists, templates and stages. Needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ultrafuser.errors import UserError, did_you_mean
from ultrafuser.train.stage import MOVES, PAPER_STAGES, Stage

T = TypeVar("T")
STAGE_NAMES = {"gate": "gate", "lora": "lora", "all": "joint"}


def split(option: str, text: str | None, kind: Callable[[str], T] = str) -> list[T] | None:  # type: ignore[assignment]
    """The comma-separated values of an option, or None if it was not given. Raises `UserError` for empty ones or another kind."""
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise UserError(f"{option} '{text}': a value is empty; give them with single commas between, or leave the option out")
    try:
        return [kind(part) for part in parts]
    except ValueError:
        raise UserError(f"{option} '{text}' is not a list of numbers such as 400,5000") from None


def templates_for(given: Sequence[str], names: Sequence[str]) -> list[str] | None:
    """What ``--template`` means for each specialist; a value without ``name=`` is one common template, ``own`` its own.

    Raises `UserError` for a name that is no specialist's, for two values for one, and for a common one beside others.
    """
    if not given or list(given) == ["own"]:
        return None
    if len(given) == 1 and "=" not in given[0]:
        return [given[0].removeprefix("common:")] * len(names)
    chosen: dict[str, str] = {}
    for value in given:
        name, equals, template = value.partition("=")
        if not equals:
            raise UserError(f"--template {value}: with several give NAME=TEMPLATE, with one of the names {', '.join(names)}")
        if name not in names:
            raise UserError(f"--template {value}: '{name}' is not one of {', '.join(names)}{did_you_mean(name, names)}")
        if name in chosen:
            raise UserError(f"--template {value}: '{name}' has a template already; give one each")
        chosen[name] = template
    return [chosen.get(name, "own") for name in names]


def names_for(specialists: Sequence[str], names: str | None) -> list[str]:
    """The specialists' names: those given, else the last part of each path or hub id."""
    return split("--names", names) or [Path(one.partition("@")[0]).resolve().name for one in specialists]


def messages(prompt: str, system: str | None) -> list[dict[str, str]]:
    """One prompt as a conversation."""
    opening = [] if system is None else [{"role": "system", "content": system}]
    return [*opening, {"role": "user", "content": prompt}]


def stages_for(moves: str | None, **options: list[Any] | None) -> list[Stage]:
    """The stages of ``ultrafuser train``: one per word of ``--moves``, the paper's two by default.

    ``options`` are fields of `Stage` with one value for all stages or one each; what is not given is as in the paper's stage
    that moves the same. Raises `UserError` for another number of values.
    """
    words = split("--moves", moves) or [stage.moves for stage in PAPER_STAGES]
    for word in words:
        if word not in MOVES:
            raise UserError(f"--moves '{word}' is not one of {', '.join(MOVES)}{did_you_mean(word, MOVES)}")
    for option, values in options.items():
        if values and len(values) not in (1, len(words)):
            flag = "--" + option.replace("_", "-")
            raise UserError(f"{flag} has {len(values)} values for {len(words)} stages ({', '.join(words)}); give one or one each")
    return [_stage(place, words, options) for place in range(len(words))]


def _stage(place: int, words: Sequence[str], options: dict[str, list[Any] | None]) -> Stage:
    word = words[place]
    paper = PAPER_STAGES[0 if word == "gate" else 1]
    given = {option: values[place % len(values)] for option, values in options.items() if values}
    twice = words.count(word) > 1
    name = STAGE_NAMES[word] + (f"-{words[: place + 1].count(word)}" if twice else "")
    defaults = {"steps": paper.steps, "per_domain": paper.per_domain, "learning_rate": paper.learning_rate}
    return Stage(name=name, moves=word, **(defaults | given))  # type: ignore[arg-type]
