"""The models of an evaluation, opened far enough to see every mistake before the first prompt is asked."""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import AutoTokenizer

from ultrafuser.errors import UserError, did_you_mean, first_line
from ultrafuser.evaluate.directory import TAKEN_OUT
from ultrafuser.evaluate.settings import EvalSettings
from ultrafuser.io import read_json_object
from ultrafuser.model.configuration_ultrafuser import UltraFuserConfig
from ultrafuser.model.digest import model_digest
from ultrafuser.model.extract import extract
from ultrafuser.model.load import load, model_folder
from ultrafuser.model.sources import default_names
from ultrafuser.tokens.templates import load_template

if TYPE_CHECKING:
    from ultrafuser.evaluate.kept import KeptAnswers
    from ultrafuser.evaluate.lm import UltraFuserLM

logger = logging.getLogger(__name__)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Model:
    """One row of the table.

    Args:
        name: of the row.
        given: the directory or hub id, as it was written.
        folder: its files; for a specialist inside a fused model the fused model's.
        specialists: of a fused model, its specialists' names; () otherwise.
        inside: for a specialist to be taken out of a fused model, its name there.
    """

    name: str
    given: str
    folder: Path
    specialists: tuple[str, ...] = ()
    inside: str | None = None


def find_models(given: Sequence[str | Path], settings: EvalSettings) -> list[Model]:
    """The models of ``given``, each ``PLACE`` or ``NAME=PLACE``, then what ``settings.with_specialists`` asks for.

    Raises `UserError` for a name that is wrong or given twice, a place without a model or that is the output's, a model
    without a chat template, and specialists asked for where no model is fused.
    """
    models = [_find(str(one)) for one in given]
    if settings.with_specialists and not any(model.specialists for model in models):
        names = ", ".join(model.given for model in models)
        raise UserError(f"--with-specialists: no fused model is among those given ({names}); leave the option out, or give one")
    rows = [*_taken_out(models), *models] if settings.with_specialists else models
    for place, row in enumerate(rows):
        if any(other.name == row.name for other in rows[:place]):
            raise UserError(f"two models are called '{row.name}'; give other names: NAME={row.given}")
    for model in models:
        if model.folder.resolve() == settings.out.resolve():  # what is written there would make another model of it
            raise UserError(f"--out {settings.out}: is the directory of '{model.name}', which is judged; choose another")
        _check_template(model, settings.template)
    return rows


def specialist_rows(models: Sequence[Model], chosen: Sequence[str] | None) -> list[str]:
    """Names of the rows that are the specialists: ``chosen``, or else those taken out of a fused model, or called like one in it.

    Raises `UserError` for a chosen name that is no row's.
    """
    names = [model.name for model in models]
    for name in chosen or ():
        if name not in names:
            raise UserError(f"--specialists: no model is called '{name}'{did_you_mean(name, names)} (of {', '.join(names)})")
    if chosen is not None:
        return list(chosen)
    known = {name for model in models for name in model.specialists}
    inside = [model.name for model in models if model.inside]
    return inside or [model.name for model in models if model.name in known and not model.specialists]


@contextmanager
def open_model(model: Model, settings: EvalSettings, kept: KeptAnswers) -> Iterator[UltraFuserLM]:
    """The model, loaded for lm-evaluation-harness. Raises `UserError` when it cannot be loaded."""
    from ultrafuser.evaluate.lm import UltraFuserLM
    from ultrafuser.evaluate.quiet import quiet

    with _folder(model, settings.out) as folder:
        loaded, tokenizer = load(folder, dtype=settings.dtype, device=settings.device, load_in=settings.load_in)
        template = settings.template if tokenizer.chat_template is None else None
        identity = " ".join([model_digest(folder), str(loaded.dtype), *filter(None, [settings.load_in])])
        with quiet():
            lm = UltraFuserLM(
                loaded, tokenizer=tokenizer, template=template, batch_size=settings.batch_size, kept=kept, identity=identity
            )
        yield lm


@contextmanager
def _folder(model: Model, out: Path) -> Iterator[Path]:
    """Where the model's files are, for as long as it is used: a specialist of a fused model is written out for that time."""
    if model.inside is None:
        yield model.folder
        return
    place = extract(model.folder, model.inside, out / TAKEN_OUT / model.name, overwrite=True)
    try:
        yield place
    finally:
        shutil.rmtree(place.parent, ignore_errors=True)  # one at a time is written out


def _find(given: str) -> Model:
    name, equals, place = given.partition("=")
    if not equals or not NAME.fullmatch(name):
        name, place = default_names([given])[0], given
    if not NAME.fullmatch(name):
        raise UserError(f"{given}: '{name}' is no name for a row; give one: NAME={given}")
    folder = model_folder(place)
    config = read_json_object(folder / "config.json")
    inside = config.get("specialist_names") if config.get("model_type") == UltraFuserConfig.model_type else None
    if not isinstance(inside, list | None):
        raise UserError(f"{folder / 'config.json'}: specialist_names is {inside!r}, not a list; fetch it again")
    return Model(name, place, folder, tuple(inside or ()))


def _taken_out(models: Sequence[Model]) -> list[Model]:
    """The specialists inside the fused models; with the fused model's name in front where their own could be another model's."""
    fused = [model for model in models if model.specialists]
    names = {model.name for model in models}
    taken = []
    for model in fused:
        for inside in model.specialists:
            # A model given by the same name may be another: what training made of it, say.
            name = f"{model.name}.{inside}" if len(fused) > 1 or inside in names else inside
            taken.append(Model(name, f"{model.given} ({inside})", model.folder, inside=inside))
    return taken


def _check_template(model: Model, template: str | None) -> None:
    """Raise `UserError` if the model has no chat template and none is given; tell of one that is given in vain."""
    if template is not None:
        load_template(template)
    try:
        own = AutoTokenizer.from_pretrained(model.folder).chat_template
    except Exception as error:  # many kinds, for whatever is wrong with the files
        raise UserError(f"{model.given}: its tokenizer cannot be loaded ({first_line(error)})") from None
    if own is None and template is None:
        raise UserError(f"{model.given}: its tokenizer has no chat template; give --template NAME or --template FILE.jinja")
    if own is not None and template is not None:
        logger.warning("note: %s: asked with its own chat template; --template is for models that have none", model.name)
