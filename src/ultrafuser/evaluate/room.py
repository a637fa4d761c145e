"""What to do with prompts that are long for a model's context; lm-evaluation-harness cuts their beginning off, we never do.

- A prompt that leaves some room is asked, with a shorter answer allowed.
- A prompt that leaves none is not asked: the answer counts as wrong (generation: nothing; likelihood: `LEFT_OUT`).
- An answer that is as long as it may be was cut off.
- A continuation without a single token of the model's vocabulary (a small one drops words it does not know) has the likelihood
  `LEFT_OUT` too: it is never the model's choice among options that were asked.

All are counted, and the score says so (`Room.notes`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

STEP = 16  # shortened answers are multiples of it, so that prompts of like length share a batch
LEFT_OUT = (-1e30, False)  # less likely than any text that fits a context, yet a number that can be normalised


@dataclass
class Room:
    """The requests of one task in a context of ``length`` tokens, and which of them had too little room.

    A request is a prompt with its continuation (or ""); a task may make the same one several times, and its notes count each.
    """

    length: int
    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    left_out: dict[tuple[str, str], int] = field(default_factory=dict)  # request -> tokens
    unwritable: set[tuple[str, str]] = field(default_factory=set)
    shortened: set[tuple[str, str]] = field(default_factory=set)
    cut_off: dict[tuple[str, str], int] = field(default_factory=dict)  # request -> tokens that its answer could have

    def generation(self, prompt: str, tokens: int, wanted: int, settings: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
        """The request for a generation of up to ``wanted`` tokens after a prompt of ``tokens``, or None if it cannot be asked."""
        self.requests[prompt, ""] += 1
        room = self.length - tokens
        if room < 1:
            self.left_out[prompt, ""] = tokens
            return None
        if room >= wanted:
            return prompt, dict(settings)
        self.shortened.add((prompt, ""))
        return prompt, dict(settings) | {"max_gen_toks": room - room % STEP or room}

    def likelihood(self, prompt: str, continuation: str, tokens: tuple[int, int]) -> tuple[str, str] | None:
        """The request for the likelihood of a continuation, or None if it cannot be asked; ``tokens`` are those of the two."""
        self.requests[prompt, continuation] += 1
        if not tokens[1]:
            self.unwritable.add((prompt, continuation))
            return None
        # The last token is never read, only predicted.
        if sum(tokens) <= self.length + 1:
            return prompt, continuation
        self.left_out[prompt, continuation] = sum(tokens)
        return None

    def answered(self, request: tuple[str, dict[str, Any]] | None, tokens: int) -> None:
        """Take note of the length of an answer to what `generation` returned, as tokens of its text (never more than it took)."""
        if request is None or (request[0], "") in self.shortened:
            return
        most = request[1].get("max_gen_toks")
        if most is not None and tokens >= most:
            self.cut_off[request[0], ""] = most

    def is_left_out(self, prompt: str, continuation: str = "") -> bool:
        """Whether this was too long to be asked."""
        return (prompt, continuation) in self.left_out

    def notes(self) -> list[str]:
        """Sentences about what did not fit."""
        notes = []
        if self.left_out:
            longest = max(self.left_out.values())
            notes.append(
                f"{self._share(self.left_out)} prompts were not asked and count as wrong: "
                f"the longest has {longest} tokens, the model's context {self.length}"
            )
        if self.unwritable:
            notes.append(
                f"{self._share(self.unwritable)} options add no token to the prompt (their words are unknown, or join "
                "its last one) and count as wrong"
            )
        if self.shortened:
            shortened = self._share(self.shortened)
            notes.append(f"{shortened} answers had less room than the task allows, in a context of {self.length} tokens")
        if self.cut_off:
            cut_off = self._share(self.cut_off)
            notes.append(f"at least {cut_off} answers were cut off at {max(self.cut_off.values())} tokens")
        return notes

    def _share(self, some: Iterable[tuple[str, str]]) -> str:
        return f"{sum(self.requests[one] for one in some)} of {self.requests.total()}"
