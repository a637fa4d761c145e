"""The way of an item from its first wording to its acceptance: which steps it goes through, in which order."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ultrafuser.synth.plan import chosen
from ultrafuser.synth.recipe import SynthRecipe
from ultrafuser.synth.record import Item

DONE = "done"
# Which items go through a step; a step that costs more stands after those that may drop the item.
APPLIES: Mapping[str, Callable[[SynthRecipe, Item], bool]] = {
    "complicate": lambda recipe, item: chosen(recipe.complicated, item.slot, _position(item)),
    "responses": lambda recipe, item: True,
    "check": lambda recipe, item: recipe.domains[item.domain].check is not None,
    "score": lambda recipe, item: recipe.score is not None,
    "turns": lambda recipe, item: chosen(recipe.turns.share, item.slot, _position(item) + 1),
}


def advance(recipe: SynthRecipe, item: Item) -> None:
    """Send an item that has passed its step to the next, or accept it after the last."""
    steps = list(APPLIES)
    later = steps[steps.index(item.step) + 1 :] if item.step in steps else steps
    item.step = next((step for step in later if APPLIES[step](recipe, item)), DONE)
    if item.step == DONE:
        item.status = "accepted"


def _position(item: Item) -> int:
    """The place of the item's sub-topic among all."""
    _, meta_topic, sub_topic, _ = item.id.split("/")
    return int(meta_topic) * 1000 + int(sub_topic)
