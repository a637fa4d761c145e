"""What every step has at hand: recipe, tables, engine, prompts, and the checks that remember earlier texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ultrafuser.endpoints.engine import Engine
from ultrafuser.synth.prompts import Prompts
from ultrafuser.synth.quality.rules import check_instruction, check_response
from ultrafuser.synth.recipe import SynthRecipe
from ultrafuser.synth.record import Item
from ultrafuser.synth.state import State

if TYPE_CHECKING:
    from ultrafuser.decontaminate import NgramIndex
    from ultrafuser.synth.quality.duplicates import Duplicates


@dataclass
class Context:
    """One run. ``log`` takes lines for the reader."""

    recipe: SynthRecipe
    state: State
    engine: Engine
    log: Callable[[str], None]
    prompts: Prompts = field(init=False)

    def __post_init__(self) -> None:
        self.prompts = Prompts(self.recipe)

    @cached_property
    def instructions(self) -> Duplicates:
        """Every instruction as it goes into the data, also if its item was dropped later: it need not be written again."""
        return self._texts[0]

    @cached_property
    def originals(self) -> Duplicates:
        """Every instruction that was to be made more complex, as it was before; its own new wording may be near to it."""
        return self._texts[1]

    @cached_property
    def _texts(self) -> tuple[Duplicates, Duplicates]:
        from ultrafuser.synth.quality.duplicates import Duplicates

        final, original = (Duplicates(self.recipe.duplicate_threshold) for _ in range(2))
        for item in self.state.items():
            if item.original is not None:
                original.add(item.id, item.original)
            elif item.step == "complicate":
                original.add(item.id, item.instruction)
            if item.step not in ("instructions", "complicate"):  # dropped there, or still on its way
                final.add(item.id, item.instruction)
        return final, original

    @cached_property
    def benchmarks(self) -> NgramIndex | None:
        """The runs of words in the benchmarks' texts. Raises `UserError` where their data cannot be had."""
        if not (wanted := self.recipe.decontaminate):
            return None
        from ultrafuser.decontaminate import NgramIndex
        from ultrafuser.testsets import test_texts

        index = NgramIndex(wanted.n)
        for name in wanted.test_sets:
            for where, text in test_texts(name, wanted.data_dir):
                index.add(text, where)
        return index

    def overlap(self, text: str) -> str | None:
        """Why a text cannot be used beside the benchmarks, or None."""
        found = self.benchmarks.overlap(text) if self.benchmarks else None
        return f"overlaps a benchmark: {found.where}, '{found.ngram}'" if found else None

    def instruction_problem(self, item: Item) -> str | None:
        """Why the item's instruction is no good, or None."""
        problem = check_instruction(self.recipe.domains[item.domain].rules, item.instruction) or self.overlap(item.instruction)
        if problem:
            return problem
        twin = self.instructions.find(item.instruction) or self.originals.find(item.instruction)
        return f"duplicate: of {twin}" if twin not in (None, item.id) else None

    def response_problem(self, domain: str, instruction: str, text: str, finish_reason: str) -> str | None:
        """Why an answer is no good, or None."""
        rules = self.recipe.domains[domain].rules
        return check_response(rules, instruction, text, finish_reason) or self.overlap(text)

    def lineage(self) -> Callable[[Item], dict[str, Any]]:
        """What the prompts about an item show of its topic, as the topics are now."""
        topics = {topic.id: topic for topic in self.state.topics("sub_topic", active=False)}
        return lambda item: {"meta_topic": item.meta_topic, "topic": topics[item.topic]}
