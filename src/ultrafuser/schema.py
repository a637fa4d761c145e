"""What a recipe may say: one YAML file that takes a run from its specialists to the report (issue part "Recipes").

A recipe either names finished specialists (``specialists.N.path``) or trains them from scratch first (section ``pretrain``), on
data files (section ``data``) or on the generated world (section ``world``). Unknown keys are mistakes. All defaults are here;
those of the stages are the paper's (section 3). `config.py` reads recipes and reports their mistakes.

Relative paths, wherever they are written, start at the current directory, as they do in every other command. The one exception
are the files of ``data.train`` and ``data.heldout``: they start at ``data.directory`` if that is given.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ultrafuser.errors import did_you_mean

TEMPLATES = resources.files("ultrafuser") / "tokens" / "templates"
DATA_SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".parquet")
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Vocabulary = Annotated[int, Field(ge=260)]  # all bytes and the special tokens
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Strings = Annotated[tuple[str, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
Schedule = Literal["cosine", "linear", "constant", "constant_with_warmup", "cosine_with_restarts", "polynomial", "inverse_sqrt"]


class Section(BaseModel):
    """A part of a recipe: no keys but those declared, no changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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
    path: str | None = None  # none when the recipe trains it from scratch
    template: str | None = None  # a shipped template's name or a Jinja file; none: the specialist's own
    domains: Strings = ()  # what pretraining teaches it; none: the domain of its own name


class Fuse(Section):
    """How the specialists are put together."""

    gate_hidden_size: Positive = 512
    template: str | None = None  # one common template for all: a shipped template's name or a Jinja file
    dtype: Literal["float32", "bfloat16", "float16"] | None = None  # none: as the specialists are


class Data(Section):
    """What is trained on and what is held out."""

    directory: str | None = None
    train: Strings = ()  # files or hub datasets, in order
    heldout: Strings = ()  # other files, only judged on
    heldout_share: Annotated[float, Field(ge=0, lt=1)] = 0.0  # instead: this share of the training conversations, chosen by hash
    leave_out: str | None = None  # records in which this field is set are left out
    domains: Annotated[Strings, Field(min_length=1)] = ("text", "code", "math")
    max_length: Positive = 2048

    def paths(self, sources: tuple[str, ...]) -> list[str]:
        """``sources`` as they are opened: files below ``directory``, everything else (hub ids, whole paths) as written."""
        folder = Path(self.directory).expanduser() if self.directory else Path()
        return [str(folder / Path(source).expanduser()) if names_file(source) else source for source in sources]


class World(Section):
    """Training data from the generated world instead of files; its test tasks are those of `Evaluation`."""

    train_per_domain: Positive = 4000
    train_mixed: Count = 0  # mixed tasks too, as one more domain of the fused model's training; specialists never see them


class Training(Section):
    """What any training needs, of a whole model or of a stage."""

    steps: Count
    per_domain: Positive
    learning_rate: Rate = 2e-5
    schedule: Schedule = "cosine"
    warmup_steps: Count = 0
    weight_decay: Decay = 0.0
    max_grad_norm: Rate = 1.0


class Stage(Training):
    """A stage of training the fused model; field for field `ultrafuser.train.stage.Stage`."""

    name: Name
    moves: Literal["gate", "lora", "all"]
    lora_rank: Positive = 16
    lora_alpha: Positive = 32


PAPER_STAGES = (
    Stage(name="gate", moves="gate", steps=400, per_domain=64),
    Stage(name="joint", moves="all", steps=5000, per_domain=32),
)


class Train(Section):
    """The stages and what is common to them; but for ``stages``, fields of `ultrafuser.train.stage.TrainSettings`."""

    stages: Annotated[tuple[Stage, ...], Field(min_length=1)] = PAPER_STAGES
    load_in: Literal["8bit", "4bit"] | None = None
    micro_batch_size: Positive = 8
    mixed_precision: Literal["auto", "bf16", "no"] = "auto"
    gradient_checkpointing: bool = False
    torch_compile: bool = False
    num_workers: Count = 0
    log_every: Positive = 10
    save_every: Positive = 250
    keep_checkpoints: Positive = 2
    report_to: Strings = ()


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
    output: str
    seed: Count = 0
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
            raw.setdefault("train", {}).setdefault("stages", [stage.model_dump() for stage in PAPER_STAGES])

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """See `WholeRecipe`."""
        yield from _specialist_contradictions(self)
        yield from _data_contradictions(self)
        yield from _stage_contradictions(self)
        if self.pretrain:
            yield from _pretrain_contradictions(self, self.pretrain)
        elif self.world:
            yield "world", "needs a section 'pretrain': no finished specialist knows its words"


def names_file(source: str) -> bool:
    """Is ``source`` a file or directory rather than an id of the hub?"""
    return source.startswith(("/", ".", "~")) or source.endswith(DATA_SUFFIXES)


def _specialist_contradictions(recipe: Recipe) -> Iterator[tuple[str, str]]:
    names = [specialist.name for specialist in recipe.specialists]
    for place, specialist in enumerate(recipe.specialists):
        key = f"specialists.{place}"
        if specialist.name in names[:place]:
            yield f"{key}.name", f"'{specialist.name}' is the name of another specialist too; rename one"
        yield from _origin_contradictions(recipe, specialist, key)
        if specialist.template and recipe.fuse.template:
            yield f"{key}.template", f"'{specialist.template}' cannot be with fuse.template, one for all; drop one of the two"
        if text := _unknown_template(specialist.template):
            yield f"{key}.template", text
    if text := _unknown_template(recipe.fuse.template):
        yield "fuse.template", text


def _unknown_template(template: str | None) -> str:
    known = sorted(file.name.removesuffix(".jinja") for file in TEMPLATES.iterdir() if file.name.endswith(".jinja"))
    known = [name for name in known if not name.startswith("_")]
    if not template or template in known or Path(template).is_file():
        return ""
    return f"'{template}' is neither one of {', '.join(known)} nor a file{did_you_mean(template, known)}"


def _origin_contradictions(recipe: Recipe, specialist: Specialist, key: str) -> Iterator[tuple[str, str]]:
    if not recipe.pretrain:
        if not specialist.path:
            yield f"{key}.path", "is missing: a directory or hub id, or a section 'pretrain' that trains the specialists"
        elif names_file(specialist.path) and not Path(specialist.path).expanduser().is_dir():
            yield f"{key}.path", f"'{specialist.path}': no such directory"
        if specialist.domains:
            yield f"{key}.domains", "is only for specialists that a section 'pretrain' trains; drop it"
        return
    if specialist.path:
        yield f"{key}.path", f"'{specialist.path}' cannot be with a section 'pretrain'; drop one of the two"
    for domain in specialist.domains or (specialist.name,):
        if domain not in recipe.data.domains:
            known = f"is not one of data.domains ({', '.join(recipe.data.domains)}){did_you_mean(domain, recipe.data.domains)}"
            yield f"{key}.domains", f"'{domain}' {known}"


def _data_contradictions(recipe: Recipe) -> Iterator[tuple[str, str]]:
    data = recipe.data
    if recipe.world and (data.train or data.heldout or data.heldout_share):
        yield "data", "names training or held-out data beside a section 'world', which makes its own; drop one of the two"
    if not recipe.world and not data.train:
        yield "data.train", "is missing: files or hub datasets to train on"
    if data.heldout and data.heldout_share:
        yield "data.heldout_share", f"{data.heldout_share:g} cannot be with data.heldout; drop one of the two"
    if len(set(data.domains)) < len(data.domains):
        yield "data.domains", f"{', '.join(data.domains)}: one stands there twice"
    if data.directory and not Path(data.directory).expanduser().is_dir():
        yield "data.directory", f"'{data.directory}': no such directory"
        return
    for key, sources in (("train", data.train), ("heldout", data.heldout)):
        for place, (source, path) in enumerate(zip(sources, data.paths(sources), strict=True)):
            if names_file(source) and not Path(path).exists():
                yield f"data.{key}.{place}", f"'{path}': no such file"


def _stage_contradictions(recipe: Recipe) -> Iterator[tuple[str, str]]:
    names = [stage.name for stage in recipe.train.stages]
    for place, stage in enumerate(recipe.train.stages):
        key = f"train.stages.{place}"
        if stage.name in names[:place]:
            yield f"{key}.name", f"'{stage.name}' is the name of another stage too; rename one"
        if recipe.train.load_in and stage.moves != "gate" and stage.steps:
            yield f"{key}.moves", f"'{stage.moves}' cannot be with train.load_in={recipe.train.load_in}: only 'gate' can"


def _pretrain_contradictions(recipe: Recipe, pretrain: Pretrain) -> Iterator[tuple[str, str]]:
    if recipe.world and pretrain.vocab_size:
        yield "pretrain.vocab_size", f"{pretrain.vocab_size} cannot be with a section 'world', which has its own words; drop it"
    if not recipe.world and not pretrain.vocab_size:
        yield "pretrain.vocab_size", "is missing: how many tokens the tokenizer shall have"
    geometry, key = pretrain.geometry, "pretrain.geometry"
    heads = geometry.num_attention_heads
    if geometry.hidden_size % (2 * heads):  # rotary embeddings turn pairs
        yield f"{key}.hidden_size", f"{geometry.hidden_size} must be a multiple of twice num_attention_heads={heads}"
    if heads % geometry.num_key_value_heads:
        yield f"{key}.num_key_value_heads", f"{geometry.num_key_value_heads} must divide num_attention_heads={heads}"
