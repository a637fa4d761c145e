"""The recipe's sections as the objects that training takes."""

from __future__ import annotations

from ultrafuser.schema import Recipe
from ultrafuser.train.stage import Stage, TrainSettings


def train_settings(recipe: Recipe) -> TrainSettings:
    """Settings of every training in the run."""
    common = recipe.train.model_dump(exclude={"stages"})
    return TrainSettings(**common, seed=recipe.seed, max_length=recipe.data.max_length, keep_stages=True)


def train_stages(recipe: Recipe) -> list[Stage]:
    """The stages of the fused model."""
    return [Stage(**stage.model_dump()) for stage in recipe.train.stages]
