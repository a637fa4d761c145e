"""Trains specialists from scratch, for recipes that bring none: a common base, then each specialist on its own domains."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    set_seed,
)

from ultrafuser.data.conversations import Conversation
from ultrafuser.data.dataset import encode_dataset
from ultrafuser.io import new_directory
from ultrafuser.run.materials import Materials
from ultrafuser.run.scratch import geometry, new_tokenizer, template
from ultrafuser.run.settings import train_settings
from ultrafuser.schema import Recipe, Specialist, Training
from ultrafuser.train.fit import train_stage
from ultrafuser.train.stage import Stage


@dataclass(frozen=True)
class Pretrainer:
    """Trains what does not exist yet under ``folder``: ``base`` and ``specialists/<name>``."""

    recipe: Recipe
    materials: Materials
    folder: Path

    @property
    def base(self) -> Path:
        """The common base that all specialists start from."""
        return self.folder / "base"

    def specialist(self, name: str) -> Path:
        """Where a specialist is or will be."""
        return self.folder / "specialists" / name

    def train_base(self) -> Path:
        """The base, trained briefly on all domains; a random initialisation with 0 steps."""
        assert self.recipe.pretrain is not None
        if not self.base.exists():
            tokenizer = new_tokenizer(self.recipe, self.materials.train)
            set_seed(self.recipe.seed)
            model = AutoModelForCausalLM.from_config(geometry(self.recipe, len(tokenizer), tokenizer))
            self._train(model, tokenizer, self.recipe.pretrain.base, self._base_lessons(), self.base)
        return self.base

    def train_specialist(self, specialist: Specialist) -> Path:
        """One specialist, trained from the base on its own domains in its own template."""
        assert self.recipe.pretrain is not None
        target = self.specialist(specialist.name)
        if not target.exists():
            tokenizer = PreTrainedTokenizerFast.from_pretrained(self.base)
            tokenizer.chat_template = template(self.recipe, specialist)
            model = AutoModelForCausalLM.from_pretrained(self.base)
            domains = specialist.domains or (specialist.name,)
            lessons = [one for one in self.materials.train if one.domain in domains]
            self._train(model, tokenizer, self.recipe.pretrain.specialist, lessons, target)
        return target

    def _base_lessons(self) -> list[Conversation]:
        """The training conversations; in the generated world requests to repeat, so that the base knows words but no answers."""
        lessons = [one for one in self.materials.train if one.domain in self.recipe.data.domains]
        if not self.recipe.world:
            return lessons
        return [replace(one, messages=[one.messages[0], one.messages[0] | {"role": "assistant"}]) for one in lessons]

    def _train(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        training: Training,
        lessons: list[Conversation],
        target: Path,
    ) -> None:
        """Train ``model`` on ``lessons`` and write it to ``target``; checkpoints are below ``work`` until it is there."""
        if training.steps:
            domains = list(dict.fromkeys(one.domain for one in lessons))
            limit = self.recipe.data.max_length
            dataset = encode_dataset(lessons, tokenizer, domains=domains, max_length=limit, progress=False)
            stage = Stage(target.name, moves="all", **asdict(training))
            work = self.folder / "work" / target.relative_to(self.folder)
            train_stage(model, tokenizer, dataset, stage, work, train_settings(self.recipe))
        with new_directory(target) as staging:
            model.save_pretrained(staging)
            tokenizer.save_pretrained(staging)
        shutil.rmtree(self.folder / "work", ignore_errors=True)
