"""The recipe's sections as the objects that training takes."""

from __future__ import annotations

from dataclasses import fields

from ultrafuser.schema import Recipe, TrainOptions, TrainSettings


def train_settings(recipe: Recipe) -> TrainSettings:
    """Settings of every training in the run."""
    common = {field.name: getattr(recipe.train, field.name) for field in fields(TrainOptions)}
    return TrainSettings(**common, seed=recipe.seed, max_length=recipe.data.max_length, keep_stages=True)
