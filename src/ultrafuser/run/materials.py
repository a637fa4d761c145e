"""What a recipe's run works on: training conversations, held-out ones, and the generated world's test tasks."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ultrafuser.data.conversations import Conversation, read_conversations
from ultrafuser.data.dataset import fitting_length
from ultrafuser.decontaminate import warn_if_unchecked
from ultrafuser.errors import UserError, plural
from ultrafuser.miniworld.task import Task, to_record
from ultrafuser.miniworld.world import generate
from ultrafuser.sandbox import require_level
from ultrafuser.schema import MIXED, Data, Evaluation, Recipe, names_file
from ultrafuser.tokens.encode import encode_conversation
from ultrafuser.tokens.pieces import TemplatePieces, read_pieces

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Materials:
    """``tasks[i]`` is what ``heldout[i]`` was made from; there are no tasks where the data comes from files."""

    train: list[Conversation]
    heldout: list[Conversation]
    tasks: list[Task]

    def domains(self) -> list[str]:
        """The domains of the training conversations; in the generated world there may be mixed ones beside the recipe's."""
        return list(dict.fromkeys(one.domain for one in self.train))

    def labels(self) -> list[list[str] | None]:
        """For each held-out conversation the domain of every answer token, or None where that is not known per token."""
        return [task.labels for task in self.tasks] if self.tasks else [None] * len(self.heldout)

    def digest(self) -> str:
        """Digest of every training and held-out conversation."""
        digest = hashlib.sha256()
        for conversation in (*self.train, *self.heldout):
            digest.update(json.dumps([conversation.domain, conversation.messages]).encode())
        return digest.hexdigest()[:16]


NOTHING = Materials([], [], [])


def places(recipe: Recipe) -> list[str]:
    """The files and hub datasets that the data of ``recipe`` are read from, as they are opened."""
    return recipe.data.paths((*recipe.data.train, *recipe.data.heldout))


def at_hand(recipe: Recipe) -> bool:
    """Can the data be read without fetching any of it?"""
    return all(names_file(place) for place in places(recipe))


def gather(recipe: Recipe) -> Materials:
    """Read or generate the data of ``recipe``.

    Raises `UserError` for mistakes in the files, and where the generated world's programs cannot be run.
    """
    return _from_world(recipe) if recipe.world else _from_files(recipe.data, recipe.evaluation)


def _from_world(recipe: Recipe) -> Materials:
    assert recipe.world is not None
    require_level("restricted")  # judging runs programs; say now that they cannot be run here, not after the training
    domains, count = recipe.data.domains, recipe.evaluation.prompts_per_domain
    counts = dict.fromkeys(domains, recipe.world.train_per_domain) | {MIXED: recipe.world.train_mixed}
    train = [task for name, number in counts.items() for task in generate(name, number, recipe.seed, "train")]
    tasks = [task for name in (*domains, MIXED) for task in generate(name, count, recipe.seed, "test")]
    return Materials([_conversation(task) for task in train], [_conversation(task) for task in tasks], tasks)


def _conversation(task: Task) -> Conversation:
    record = to_record(task)
    return Conversation(record["domain"], record["messages"], f"miniworld {task.family}")


def _from_files(data: Data, evaluation: Evaluation) -> Materials:
    train = read_conversations(data.paths(data.train), domains=data.domains, leave_out=data.leave_out)
    warn_if_unchecked(data.paths(data.train))  # whatever `leave_out` leaves out: nobody knows what those marks were made for
    if data.heldout:
        heldout = read_conversations(data.paths(data.heldout), domains=data.domains)
        train = _without_questions(train, heldout)
    else:
        heldout = [one for one in train if _fraction(one) < data.heldout_share]
        train = [one for one in train if _fraction(one) >= data.heldout_share]
    kept = [one for name in data.domains for one in _first(heldout, name, evaluation.heldout_per_domain)]
    for name in data.domains:
        for part, side in (("train", train), ("heldout", kept)):
            if not any(one.domain == name for one in side) and (part == "train" or heldout):
                why = f"; change data.heldout_share={data.heldout_share:g}"
                if data.heldout:
                    why = ": data.heldout has all its questions; give other files there, or data.heldout_share instead"
                raise UserError(f"data.{part}: no example of domain '{name}' is left{why}")
    return Materials(train, kept, [])


def _without_questions(train: list[Conversation], heldout: Iterable[Conversation]) -> list[Conversation]:
    """``train`` without the questions of ``heldout``, with a warning: a model that has learnt them is judged too well."""
    asked = {_question(one) for one in heldout}
    kept = [one for one in train if _question(one) not in asked]
    if len(kept) < len(train):
        count = plural(len(train) - len(kept), "conversation")
        logger.warning("data.train: %s left out of training, as data.heldout has the same questions", count)
    return kept


def _first(conversations: Iterable[Conversation], domain: str, limit: int | None) -> list[Conversation]:
    """Up to ``limit`` conversations of ``domain``, chosen by hash, so that the choice does not depend on the files' order."""
    return sorted((one for one in conversations if one.domain == domain), key=_fraction)[:limit]


def _fraction(conversation: Conversation) -> float:
    """A number in [0, 1) that depends on the first question alone: the same question is always on the same side."""
    return int.from_bytes(hashlib.sha256(_question(conversation).encode()).digest()[:6], "big") / 2**48


def _question(conversation: Conversation) -> str:
    """The first question; space around it does not make another."""
    return next(message["content"] for message in conversation.messages if message["role"] == "user").strip()


def by_domain(conversations: Iterable[Conversation]) -> dict[str, list[Conversation]]:
    """The conversations of every domain, in the order in which the domains first appear."""
    groups: dict[str, list[Conversation]] = {}
    for conversation in conversations:
        groups.setdefault(conversation.domain, []).append(conversation)
    return groups


def token_counts(conversations: Iterable[Conversation], tokenizer: Any, max_length: int) -> Iterator[int]:
    """Tokens of each conversation as training takes it: cut at a turn boundary, 0 where not even the first exchange fits."""
    pieces = read_pieces(tokenizer)
    for conversation in conversations:
        yield fitting_length(encode_conversation(tokenizer, pieces, conversation.messages).turn_ends, max_length)


def fitting_messages(conversation: Conversation, tokenizer: Any, pieces: TemplatePieces, max_length: int) -> list[dict[str, str]]:
    """The messages of a conversation as training takes it: up to the last exchange that fits, none if the first does not."""
    ends = encode_conversation(tokenizer, pieces, conversation.messages).turn_ends
    left_out = sum(end > max_length for end in ends)
    return conversation.messages[: len(conversation.messages) - 2 * left_out] if left_out < len(ends) else []
