"""What a recipe may say: one YAML file that takes a run from its specialists to the report (issue part "Recipes").

A recipe either names finished specialists (``specialists.N.path``) or trains them from scratch first (section ``pretrain``), on
data files (section ``data``) or on the generated world (section ``world``). Unknown keys are mistakes. All defaults are here;
those of the stages are the paper's (section 3). `config.py` reads recipes and reports their mistakes.

Relative paths, wherever they are written, start at the current directory, as they do in every other command. The one exception
are the files of ``data.train`` and ``data.heldout``: they start at ``data.directory`` if that is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, asdict
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from ultrafuser.io import user_path
from ultrafuser.refused import not_a_boolean, told_plainly

CLOSED = ConfigDict(extra="forbid")  # no keys but those declared
LINES_SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz")
DATA_SUFFIXES = (*LINES_SUFFIXES, ".parquet")
LARGEST_SEED = 2**31 - 1  # what every library takes
MANY = 10**9  # of anything; products of them still fit 64 bits
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
WholeNumber = Annotated[int, not_a_boolean("int_type")]
Number = Annotated[float, not_a_boolean("float_type")]
Positive = Annotated[WholeNumber, Field(ge=1, le=MANY)]
Count = Annotated[WholeNumber, Field(ge=0, le=MANY)]
Seed = Annotated[WholeNumber, Field(ge=0, le=LARGEST_SEED)]
Vocabulary = Annotated[WholeNumber, Field(ge=260)]  # all bytes and the special tokens
Rate = Annotated[Number, Field(gt=0, allow_inf_nan=False)]
Decay = Annotated[Number, Field(ge=0, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]
Strings = Annotated[tuple[Text, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
Moves = Literal["gate", "lora", "all"]
LoadIn = Literal["8bit", "4bit"]
Dtype = Literal["float32", "bfloat16", "float16"]
Precision = Literal["auto", "bf16", "no"]
Schedule = Literal["cosine", "linear", "constant", "constant_with_warmup", "cosine_with_restarts", "polynomial", "inverse_sqrt"]
# Names in a run's table of scores that no specialist or domain may have: the row of the common base (others that are no
# specialist's have a space in them), the column of the mean over the domains, and that of the world's tasks of two domains.
BASE, MEAN, MIXED = "base", "mean", "mixed"


class Section(BaseModel):
    """A part of a recipe: no keys but those declared, no changes after reading."""

    model_config = CLOSED | ConfigDict(frozen=True)


class WholeRecipe(Section):
    """A kind of recipe; ``folder`` is where the shipped ones of the kind are, below ``recipes``."""

    folder: ClassVar[str] = ""

    @classmethod
    def fill(cls, raw: dict[str, Any]) -> None:
        """Write defaults into what was read, where overrides shall be able to change parts of them."""

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield ``(key, mistake)`` for values that are each possible but not together, and for files that do not exist."""
        yield from ()


class Specialist(Section):
    """One specialist: a directory, a hub id (``owner/name@revision``) or a LoRA adapter that knows its base."""

    name: Name
    path: Text | None = None  # none when the recipe trains it from scratch
    template: Text | None = None  # a shipped template's name or a Jinja file; none: the specialist's own
    domains: Strings = ()  # what pretraining teaches it; none: the domain of its own name


class Fuse(Section):
    """How the specialists are put together."""

    gate_hidden_size: Positive = 512
    template: Text | None = None  # one common template for all: a shipped template's name or a Jinja file
    dtype: Dtype | None = None  # none: as the specialists are


class Data(Section):
    """What is trained on and what is held out."""

    directory: Text | None = None
    train: Strings = ()  # files or hub datasets, in order
    heldout: Strings = ()  # other files, only judged on
    heldout_share: Annotated[Number, Field(ge=0, lt=1)] = 0.0  # instead: this share of the training conversations, chosen by hash
    leave_out: Text | None = None  # records in which this field is set are left out
    domains: Annotated[Strings, Field(min_length=1)] = ("text", "code", "math")
    max_length: Positive = 2048

    def paths(self, sources: tuple[str, ...]) -> list[str]:
        """``sources`` as they are opened: files below ``directory``, everything else (hub ids, whole paths) as written."""
        folder = user_path(self.directory) if self.directory else Path()
        return [str(folder / user_path(source)) if names_file(source) else source for source in sources]


class World(Section):
    """Training data from the generated world instead of files; its test tasks are those of `Evaluation`."""

    train_per_domain: Positive = 4000
    train_mixed: Count = 0  # mixed tasks too, as one more domain of the fused model's training; specialists never see them


@told_plainly
@dataclass(frozen=True, kw_only=True, config=CLOSED)
class Training:
    """What any training needs, of a whole model or of a stage (paper, section 3): AdamW, 2e-5, cosine.

    Where the paper is silent we chose: no warm-up (AdamW's first steps are bounded by the learning rate, which is small), no
    weight decay (it would pull the specialists away from what they were trained to), gradients clipped to norm 1.

    Args:
        steps: optimiser steps.
        per_domain: examples of every domain in a global batch, whatever the number of processes.
        schedule: a learning-rate schedule by its transformers name.
    """

    steps: Count
    per_domain: Positive
    learning_rate: Rate = 2e-5
    schedule: Schedule = "cosine"
    warmup_steps: Count = 0
    weight_decay: Decay = 0.0
    max_grad_norm: Rate = 1.0

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """As of `WholeRecipe`."""
        if 0 < self.steps < self.warmup_steps:
            yield "warmup_steps", f"{self.warmup_steps} is more than steps={self.steps}; lower it"


@told_plainly
@dataclass(frozen=True, config=CLOSED)
class Stage(Training):
    """One stage of training the fused model; with 0 steps it is skipped.

    Args:
        name: names the stage in logs, directories and messages.
        moves: ``gate`` (specialists stay bitwise unchanged), ``lora`` (low-rank updates of the specialists' linear
            layers, merged at the end, and the whole gate) or ``all``.
    """

    name: Name
    moves: Moves
    _: KW_ONLY
    lora_rank: Positive = 16
    lora_alpha: Positive = 32


PAPER_STAGES = (
    Stage("gate", moves="gate", steps=400, per_domain=64),
    Stage("joint", moves="all", steps=5000, per_domain=32),
)


@told_plainly
@dataclass(frozen=True, kw_only=True, config=CLOSED)
class TrainOptions:
    """What is common to all stages, in recipes and for `ultrafuser.train` alike.

    Args:
        load_in: ``"8bit"`` or ``"4bit"`` loads frozen specialists quantised (bitsandbytes); gate stages only.
        micro_batch_size: most examples in one forward pass of one process; the largest divisor that fits is taken.
        mixed_precision: ``"bf16"``, ``"no"``, or ``"auto"``: bf16 on a GPU that has it, else float32.
        gradient_checkpointing: compute activations again in the backward pass: less memory, about a third slower.
        save_every: optimiser steps between checkpoints; the newest ``keep_checkpoints`` are kept.
        report_to: trackers known to transformers, such as ``("wandb",)`` or ``("tensorboard",)``.
    """

    load_in: LoadIn | None = None
    micro_batch_size: Positive = 8
    mixed_precision: Precision = "auto"
    gradient_checkpointing: bool = False
    torch_compile: bool = False
    num_workers: Count = 0
    log_every: Positive = 10
    save_every: Positive = 250
    keep_checkpoints: Positive = 2
    report_to: Strings = ()


@told_plainly
@dataclass(frozen=True, kw_only=True, config=CLOSED)
class TrainSettings(TrainOptions):
    """What `ultrafuser.train` takes beside the stages; where a recipe does not say it itself, it follows from others of its keys.

    Args:
        seed: decides the order of the examples and every random number.
        max_length: conversations longer than this many tokens are cut at a turn boundary.
        keep_stages: also keep each stage's own result, beside the output, as ``OUT-<stage name>``.
        overwrite: replace an existing output, and an unfinished run made with other settings.
    """

    seed: Seed = 0
    max_length: Positive = 2048
    keep_stages: bool = False
    progress: bool = True
    overwrite: bool = False


@told_plainly
@dataclass(frozen=True, kw_only=True, config=CLOSED)
class Train(TrainOptions):
    """The stages and what is common to them."""

    stages: Annotated[tuple[Stage, ...], Field(min_length=1)] = PAPER_STAGES


class Geometry(Section):
    """The shape of a specialist from scratch, in the words of its transformers config."""

    model_type: Literal["llama", "mistral", "qwen2", "qwen3"] = "llama"
    hidden_size: Positive
    intermediate_size: Positive
    num_hidden_layers: Positive
    num_attention_heads: Positive
    num_key_value_heads: Positive
    max_position_embeddings: Positive = 2048
    initializer_range: Rate = 0.02
    tie_word_embeddings: bool = False


class Pretrain(Section):
    """Specialists from scratch: one tokenizer, one common base trained on all domains, then each on its own."""

    vocab_size: Vocabulary | None = None  # of a byte-level BPE tokenizer; none: the words of the generated world
    geometry: Geometry
    base: Training  # with 0 steps the specialists start from one random initialisation
    specialist: Training


class Evaluation(Section):
    """What is measured of the base, every specialist, their average merge, the untrained gate and every stage."""

    heldout_per_domain: Positive | None = None  # held-out conversations for the loss; none: all
    prompts_per_domain: Count = 300  # test prompts of the generated world, mixed ones included
    samples_per_domain: Count = 4  # answers shown with coloured tokens
    max_new_tokens: Positive = 256
    batch_size: Positive = 32
    baselines: bool = True  # false: judge only the stages


class Recipe(WholeRecipe):
    """A whole run. JSON for provenance: ``recipe.model_dump(mode="json")``."""

    name: Name
    description: str = ""
    output: Text
    seed: Seed = 0
    specialists: Annotated[tuple[Specialist, ...], Field(min_length=2, max_length=8)]
    fuse: Fuse = Fuse()
    world: World | None = None
    pretrain: Pretrain | None = None
    data: Data = Data()
    train: Train = Train()
    evaluation: Evaluation = Evaluation()

    @classmethod
    def fill(cls, raw: dict[str, Any]) -> None:
        """The paper's stages."""
        if isinstance(raw.get("train", {}), dict):
            raw.setdefault("train", {}).setdefault("stages", [asdict(stage) for stage in PAPER_STAGES])

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """See `WholeRecipe`."""
        from ultrafuser.contradictions import contradictions

        yield from contradictions(self)


def names_file(source: str) -> bool:
    """Is ``source`` a file or directory rather than an id of the hub?"""
    return source.startswith(("/", ".", "~")) or source.endswith(DATA_SUFFIXES)
