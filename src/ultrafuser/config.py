"""Reads a recipe and dotted overrides, and reports all of their mistakes at once (issue part "Recipes").

There is more than one kind of recipe: each is a `schema.WholeRecipe`, and `read_recipe` reads them all. It collects mistakes by
the place they are at: overrides that cannot be applied, values that must still be given (``???`` in the file), what the schema
refuses, and, once what is refused has been put aside, contradictions between the rest.
"""

from __future__ import annotations

import copy
import re
import typing
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ultrafuser.errors import UserError, did_you_mean
from ultrafuser.schema import Recipe, WholeRecipe

__all__ = ["Recipe", "load_recipe", "read_recipe", "shipped_recipes"]
MUST_BE_GIVEN = "???"
Place = tuple[str | int, ...]  # ("train", "stages", 0, "steps")
Mistakes = dict[Place, str]  # the text that follows the key
Schema = TypeVar("Schema", bound=WholeRecipe)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a training run; see `read_recipe`."""
    return read_recipe(Recipe, path, overrides)


def read_recipe(schema: type[Schema], path: str | Path, overrides: Sequence[str] = ()) -> Schema:
    """Read the recipe at ``path``, or the shipped one of that name, with ``overrides`` such as ``train.stages.0.steps=100``.

    Values of overrides are YAML. Raises `UserError` with one line per mistake.
    """
    raw = _read_yaml(_find(schema, path))
    schema.fill(raw)
    malformed = [mistake for override in overrides if (mistake := _apply(raw, override))]
    recipe, mistakes = _validate(schema, raw)
    lines = [*malformed, *(f"{_dotted(place)}{text}" for place, text in mistakes.items())]
    if recipe is None or lines:
        raise UserError(f"{path}: {lines[0]}" if len(lines) == 1 else f"{path}: {len(lines)} mistakes\n  " + "\n  ".join(lines))
    return recipe


def shipped_recipes(schema: type[WholeRecipe] = Recipe) -> dict[str, Path]:
    """The recipes of one kind that come with the package, by name: those of the source tree, or of the installed wheel."""
    package = Path(str(resources.files("ultrafuser")))
    folders = [parent / "recipes" / schema.folder for parent in (package, package.parents[1])]
    return {file.stem: file for folder in folders if folder.is_dir() for file in sorted(folder.glob("*.yaml"))}


def _find(schema: type[WholeRecipe], path: str | Path) -> Path:
    path, shipped = Path(path).expanduser(), shipped_recipes(schema)
    if path.is_file():
        return path
    if str(path) in shipped:
        return shipped[str(path)]
    near = did_you_mean(path.name, [*shipped, *(file.name for file in path.parent.glob("*.y*ml"))])
    raise UserError(f"{path}: no such recipe" + (near or f"; give a file or one of {', '.join(shipped)}"))


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: must hold keys such as 'name' and 'output', but holds {_short(raw)}")
    return raw


def _apply(raw: dict[str, Any], override: str) -> str | None:
    """Set one ``key.sub=value`` in ``raw``; return the mistake if it cannot be done."""
    dotted, equals, text = override.partition("=")
    *sections, last = dotted.split(".")
    if not equals or not all([*sections, last]):
        return f"override '{override}' is not of the form key.sub=value"
    node: Any = raw
    try:
        for part in sections:
            key: Any = _key(node, part)
            if isinstance(node, dict) and node.get(part) is None:
                node[part] = {}
            node = node[key]
        key = _key(node, last)
        node[key] = yaml.safe_load(text)
    except yaml.YAMLError:
        return f"override '{override}': the value is not valid YAML; quote it"
    except LookupError as error:
        return f"override '{override}': {error.args[0]}"
    return None


def _key(node: Any, part: str) -> str | int:
    """``part`` of a dotted key as what it is in ``node``: a key or a place. Raises `LookupError` if it cannot be there."""
    if isinstance(node, dict):
        return part
    if not isinstance(node, list):
        raise LookupError(f"there is no '{part}' in {_short(node)}")
    if not part.isdigit() or int(part) >= len(node):
        raise LookupError(f"'{part}' is not a place in a list of {len(node)}, counted from 0")
    return int(part)


def _validate(schema: type[Schema], raw: dict[str, Any]) -> tuple[Schema | None, Mistakes]:
    """Check ``raw``. What is refused is put aside and the rest checked once more, so that no mistake hides another."""
    rest = copy.deepcopy(raw)
    mistakes = {place: ": must be given, as in " + _dotted(place) + "=VALUE" for place in _not_given(rest)}
    unknown = [*mistakes, *_put_aside(schema, rest, mistakes)]  # the sections that they are in cannot be judged as a whole
    try:
        recipe = schema.model_validate(rest)
    except ValidationError as error:
        refused = _refused(schema, error)
        mistakes = refused | mistakes
        unknown += _put_aside(schema, rest, refused)
        try:
            recipe = schema.model_validate(rest)
        except ValidationError:
            return None, mistakes
    for key, text in recipe.contradictions():
        place = tuple(int(part) if part.isdigit() else part for part in key.split("."))
        beside = any(len(other) > 1 and place[: len(other) - 1] == other[:-1] for other in unknown)
        known = any(place[: len(other)] == other[: len(place)] for other in mistakes)
        if not beside and not known:
            mistakes[place] = f": {text}"
    return recipe, mistakes


def _not_given(node: Any, place: Place = ()) -> list[Place]:
    """The places of all ``???``."""
    if node == MUST_BE_GIVEN:
        return [place]
    items: Any = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [found for key, child in items for found in _not_given(child, (*place, key))]


def _put_aside(schema: type[WholeRecipe], raw: dict[str, Any], places: Iterable[Place]) -> list[Place]:
    """Take refused values out of ``raw``; where one is required put a stand-in. Returns the places of stand-ins."""
    stand_ins = []
    for place in places:
        while isinstance(place[-1], int):  # not one item of a list, which would move the others, but the list
            place = place[:-1]
        try:
            node: Any = raw
            for part in place[:-1]:
                node = node[part]
            node.pop(place[-1], None)
        except (LookupError, AttributeError, TypeError):
            continue  # in something that has been put aside already
        field = _section_of(schema, place).model_fields.get(str(place[-1]))
        if field and field.is_required() and (value := _stand_in(field.annotation, place)) is not None:
            node[place[-1]] = value
            stand_ins.append(place)
    return stand_ins


def _stand_in(annotation: Any, place: Place) -> Any:
    """Some valid value of a required field, or None for those that have parts."""
    if typing.get_origin(annotation) is typing.Literal:
        return typing.get_args(annotation)[0]
    return {int: 1, str: "-".join(map(str, ("x", *place)))}.get(annotation)


def _refused(schema: type[WholeRecipe], error: ValidationError) -> Mistakes:
    """What pydantic found, but for what it says about a whole because of a part, such as a list too short without the part."""
    found = {tuple(details["loc"]): _describe(schema, details) for details in error.errors()}
    return {place: text for place, text in found.items() if not any(place == other[: len(place)] != other for other in found)}


def _describe(schema: type[WholeRecipe], details: ErrorDetails) -> str:
    """A mistake found by pydantic in our words: the value, what is allowed, and what may have been meant."""
    place, value = details["loc"], details["input"]
    if details["type"] == "extra_forbidden":
        return f": unknown key{did_you_mean(str(place[-1]), _section_of(schema, place).model_fields)}"
    if details["type"] == "missing":
        return ": is missing"
    if details["type"] == "string_pattern_mismatch":
        return f"={_short(value)}: must be letters, digits, '-', '_' and '.' only"
    message = re.sub(r"^\w+ should ", "must ", details["msg"]).replace(" after validation", "").removeprefix("Value error, ")
    allowed = [word.strip("'") for word in str(details.get("ctx", {}).get("expected", "")).replace(" or ", ", ").split(", ")]
    return f"={_short(value)}: {message}{did_you_mean(str(value), allowed)}"


def _section_of(schema: type[WholeRecipe], place: Place) -> type[BaseModel]:
    """The type of the section that ``place`` is in. Places in lists and names in mappings do not lead to another type."""
    section: type[BaseModel] = schema
    named = False  # is the next part a name in a mapping?
    for part in place[:-1]:
        if isinstance(part, str) and not named and part in section.model_fields:
            annotation = section.model_fields[part].annotation
            section, named = _section(annotation) or section, _is_mapping(annotation)
        else:
            named = False
    return section


def _is_mapping(annotation: Any) -> bool:
    return typing.get_origin(annotation) is dict or any(map(_is_mapping, typing.get_args(annotation)))


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section type in an annotation such as ``tuple[Stage, ...]`` or ``Pretrain | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in typing.get_args(annotation) if (found := _section(inner))), None)


def _dotted(place: Place) -> str:
    return ".".join(map(str, place))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
