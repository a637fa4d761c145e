"""What a recipe says that is possible by itself but not together, and files that do not exist: for `schema.Recipe`.

What concerns training alone is the same for `ultrafuser.train`: `train.stage.check_stages` raises it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import resources

from ultrafuser.errors import did_you_mean
from ultrafuser.io import is_directory, is_file, user_path
from ultrafuser.schema import BASE, MEAN, MIXED, Pretrain, Recipe, Specialist, Stage, TrainOptions, names_file

ANY_TRACKER = ("all", "none")  # words of transformers for all that are installed, and for none
TEMPLATES = resources.files("ultrafuser") / "tokens" / "templates"


def contradictions(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield ``(key, mistake)``; see `schema.WholeRecipe`."""
    yield from _specialist_contradictions(recipe)
    yield from _data_contradictions(recipe)
    yield from _below("train", training_contradictions(recipe.train.stages, recipe.train))
    if recipe.pretrain:
        yield from _pretrain_contradictions(recipe, recipe.pretrain)
    elif recipe.world:
        yield "world", "needs a section 'pretrain': no finished specialist knows its words"


def _specialist_contradictions(recipe: Recipe) -> Iterator[tuple[str, str]]:
    names = [specialist.name.casefold() for specialist in recipe.specialists]
    for place, specialist in enumerate(recipe.specialists):
        key = f"specialists.{place}"
        if names[place] in names[:place]:
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
    if not template or template in known or is_file(user_path(template)):
        return ""
    return f"'{template}' is neither one of {', '.join(known)} nor a file{did_you_mean(template, known)}"


def _origin_contradictions(recipe: Recipe, specialist: Specialist, key: str) -> Iterator[tuple[str, str]]:
    if not recipe.pretrain:
        if not specialist.path:
            yield f"{key}.path", "is missing: a directory or hub id, or a section 'pretrain' that trains the specialists"
        elif names_file(specialist.path) and not is_directory(user_path(specialist.path)):
            yield f"{key}.path", f"'{specialist.path}': no such directory"
        if specialist.domains:
            yield f"{key}.domains", "is only for specialists that a section 'pretrain' trains; drop it"
        return
    if specialist.path:
        yield f"{key}.path", f"'{specialist.path}' cannot be with a section 'pretrain'; drop one of the two"
    if specialist.name == BASE:
        yield f"{key}.name", f"'{BASE}' is the name of the common base in the table of scores; choose another"
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
    for domain in (MEAN, *([MIXED] if recipe.world else [])):
        if domain in data.domains:
            yield "data.domains", f"'{domain}' is the name of another column in the table of scores; choose another"
    if data.directory and not is_directory(user_path(data.directory)):
        yield "data.directory", f"'{data.directory}': no such directory"
        return
    for key, sources in (("train", data.train), ("heldout", data.heldout)):
        for place, (source, path) in enumerate(zip(sources, data.paths(sources), strict=True)):
            if names_file(source) and not (is_file(path) or is_directory(path)):
                yield f"data.{key}.{place}", f"'{path}': no such file"


def training_contradictions(stages: Sequence[Stage], options: TrainOptions) -> Iterator[tuple[str, str]]:
    """Yield ``(key, mistake)`` for stages and options that cannot be together, and for trackers that are not there."""
    names = [stage.name for stage in stages]
    if not names:
        yield "stages", "no stage to train; give at least one"
    elif not any(stage.steps for stage in stages):
        yield "stages", f"nothing to train: 0 steps in stage {' and stage '.join(names)}; give at least one of them some"
    for place, stage in enumerate(stages):
        key = f"stages.{place}"
        if stage.name in names[:place]:
            yield f"{key}.name", f"'{stage.name}' is the name of another stage too; rename one"
        yield from _below(key, stage.contradictions())
        if options.load_in and stage.moves != "gate" and stage.steps:
            frozen = f"load_in={options.load_in}, which freezes the specialists"
            yield f"{key}.moves", f"'{stage.moves}' cannot be with {frozen}; choose one of the two"
    if options.report_to:
        yield from _tracker_contradictions(options.report_to)


def _tracker_contradictions(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    from transformers.integrations import integration_utils  # only here: it loads torch

    known, installed = integration_utils.INTEGRATION_TO_CALLBACK, integration_utils.get_available_reporting_integrations()
    # Those are what "all" means; two that can be asked for may be missing.
    unlisted = {"azure_ml": integration_utils.is_azureml_available, "flyte": integration_utils.is_flytekit_available}
    installed += [name for name, is_there in unlisted.items() if name not in installed and is_there()]
    if len(names) > 1 and (word := next((name for name in names if name in ANY_TRACKER), None)):
        yield "report_to", f"'{word}' stands alone; drop it or the others"
    for name in names:
        if name not in (*known, *ANY_TRACKER):
            yield "report_to", f"'{name}' is not one of {', '.join(sorted(known))}{did_you_mean(name, known)}"
        elif name not in (*installed, *ANY_TRACKER):
            there = ", ".join(installed) or "none"
            yield "report_to", f"'{name}' is not installed (installed are: {there}); install it or leave it out"


def _pretrain_contradictions(recipe: Recipe, pretrain: Pretrain) -> Iterator[tuple[str, str]]:
    if recipe.world and pretrain.vocab_size:
        yield "pretrain.vocab_size", f"{pretrain.vocab_size} cannot be with a section 'world', which has its own words; drop it"
    if not recipe.world and not pretrain.vocab_size:
        yield "pretrain.vocab_size", "is missing: how many tokens the tokenizer shall have"
    yield from _below("pretrain.base", pretrain.base.contradictions())
    yield from _below("pretrain.specialist", pretrain.specialist.contradictions())
    geometry, key = pretrain.geometry, "pretrain.geometry"
    heads = geometry.num_attention_heads
    if geometry.hidden_size % (2 * heads):  # rotary embeddings turn pairs
        yield f"{key}.hidden_size", f"{geometry.hidden_size} must be a multiple of twice num_attention_heads={heads}"
    if heads % geometry.num_key_value_heads:
        yield f"{key}.num_key_value_heads", f"{geometry.num_key_value_heads} must divide num_attention_heads={heads}"


def _below(key: str, found: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """What was found in the section ``key``, with its keys as they are in the whole."""
    yield from ((f"{key}.{part}", text) for part, text in found)
