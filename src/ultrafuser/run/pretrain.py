"""Specialists from scratch, for recipes that bring none: a tokenizer, a common base, then one specialist per domain.

All share the base's vocabulary and geometry; each answers in its own chat template and learns from its own domains only.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import ByteLevelBPETokenizer
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    set_seed,
)

from ultrafuser.data.conversations import Conversation
from ultrafuser.data.dataset import encode_dataset
from ultrafuser.io import new_directory
from ultrafuser.miniworld import language
from ultrafuser.run.materials import Materials
from ultrafuser.run.settings import train_settings
from ultrafuser.schema import Recipe, Specialist, Training
from ultrafuser.tokens.templates import load_template
from ultrafuser.train.fit import train_stage
from ultrafuser.train.stage import Stage

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>")
BASE_TEMPLATE = "plain"


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
            tokenizer = self._new_tokenizer()
            set_seed(self.recipe.seed)
            model = AutoModelForCausalLM.from_config(self._config(tokenizer))
            self._train(model, tokenizer, self.recipe.pretrain.base, self._base_lessons(), self.base)
        return self.base

    def train_specialist(self, specialist: Specialist) -> Path:
        """One specialist, trained from the base on its own domains in its own template."""
        assert self.recipe.pretrain is not None
        target = self.specialist(specialist.name)
        if not target.exists():
            tokenizer = PreTrainedTokenizerFast.from_pretrained(self.base)
            tokenizer.chat_template = self._template(specialist)
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
        if training.steps:
            domains = list(dict.fromkeys(one.domain for one in lessons))
            limit = self.recipe.data.max_length
            dataset = encode_dataset(lessons, tokenizer, domains=domains, max_length=limit, progress=False)
            stage = Stage(target.name, moves="all", **training.model_dump())
            work = self.folder / "work" / target.name
            train_stage(model, tokenizer, dataset, stage, work, train_settings(self.recipe))
        with new_directory(target) as staging:
            model.save_pretrained(staging)
            tokenizer.save_pretrained(staging)
        shutil.rmtree(self.folder / "work" / target.name, ignore_errors=True)

    def _new_tokenizer(self) -> PreTrainedTokenizerFast:
        assert self.recipe.pretrain is not None
        size = self.recipe.pretrain.vocab_size
        return train_bpe(self.materials.train, size) if size else language.build_tokenizer("base")

    def _template(self, specialist: Specialist) -> str:
        if specialist.template:
            return load_template(specialist.template)
        return language.chat_template(specialist.name) if self.recipe.world else load_template(BASE_TEMPLATE)

    def _config(self, tokenizer: PreTrainedTokenizerBase) -> Any:
        assert self.recipe.pretrain is not None
        shape = self.recipe.pretrain.geometry.model_dump()
        ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        return CONFIG_MAPPING[shape.pop("model_type")](vocab_size=len(tokenizer), **shape, **ids)


def train_bpe(conversations: list[Conversation], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most ``vocab_size`` tokens, trained on all messages of ``conversations``."""
    bpe = ByteLevelBPETokenizer()
    texts = (message["content"] for conversation in conversations for message in conversation.messages)
    bpe.train_from_iterator(texts, vocab_size=vocab_size, special_tokens=list(SPECIAL_TOKENS), show_progress=False)
    pad, bos, eos = SPECIAL_TOKENS
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer,
        pad_token=pad,
        bos_token=bos,
        eos_token=eos,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=load_template(BASE_TEMPLATE),
    )
