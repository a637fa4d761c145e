"""Reads a recipe and dotted overrides, and reports all of their mistakes at once (issue part "Recipes").

There is more than one kind of recipe: each is a `schema.WholeRecipe`, and `read_recipe` reads them all. It collects mistakes by
the place they are at: overrides that cannot be applied or are not YAML, values that must still be given (``???`` in the file),
what the schema refuses, and, with stand-ins for what is refused, contradictions between the rest.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from ultrafuser.errors import UserError, UserErrors, did_you_mean
from ultrafuser.io import is_file, names_beside, user_path
from ultrafuser.refused import Mistakes, dotted, refused, short
from ultrafuser.schema import Recipe, WholeRecipe
from ultrafuser.stand_ins import Place, is_list, with_stand_ins

__all__ = ["Recipe", "load_recipe", "read_recipe", "shipped_recipes"]
MUST_BE_GIVEN = "???"
MERGE = "tag:yaml.org,2002:merge"  # of the key <<
ATTEMPTS = 4  # at a recipe with stand-ins: taking out a part may leave a whole with too few of them
MOST_VALUES = 100_000  # in a file whose aliases are written out; with ten aliases of ten aliases of .. a line makes billions
Schema = TypeVar("Schema", bound=WholeRecipe)


@dataclass(frozen=True)
class _Unreadable:
    """Stands where an override puts what is not YAML."""

    text: str
    reason: str

    def __repr__(self) -> str:
        return self.text


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but a key that stands twice in one section is a mistake, and so are endless aliases."""

    def get_single_node(self) -> yaml.Node | None:
        root: yaml.Node | None = super().get_single_node()
        if root and _values(root, {}) > MOST_VALUES:
            raise yaml.YAMLError(f"with its aliases written out it holds more than {MOST_VALUES:,} values")
        return root

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        first: dict[Hashable, yaml.Node] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            # Compared as what they are: 1 and "1" are two, yes and true are one.
            meant = key.value if key.tag == MERGE else self.construct_object(key)
            if (other := first.setdefault(meant, key)) is not key:
                raise yaml.YAMLError(f"'{key.value}' stands twice in one section, first in line {other.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


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
    lines = [*malformed, *mistakes]
    if recipe is None or lines:
        raise UserErrors(str(path), lines)
    return recipe


def shipped_recipes(schema: type[WholeRecipe] = Recipe) -> dict[str, Path]:
    """The recipes of one kind that come with the package, by name: those of the source tree, or of the installed wheel."""
    package = Path(str(resources.files("ultrafuser")))
    folders = [parent / "recipes" / schema.folder for parent in (package, package.parents[1])]
    return {file.stem: file for folder in folders if folder.is_dir() for file in sorted(folder.glob("*.yaml"))}


def _find(schema: type[WholeRecipe], path: str | Path) -> Path:
    path, shipped = user_path(path), shipped_recipes(schema)
    if is_file(path):
        return path
    if str(path) in shipped:
        return shipped[str(path)]
    near = did_you_mean(path.name, [*shipped, *(name for name in names_beside(path) if name.endswith((".yaml", ".yml")))])
    raise UserError(f"{path}: no such recipe" + (near or f"; give a file or one of {', '.join(shipped)}"))


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """How many values ``node`` holds when every alias in it is written out; ``known`` remembers the parts."""
    if id(node) not in known:
        parts = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
        known[id(node)] = 1 + sum(_values(part, known) for part in parts if isinstance(part, yaml.Node))
    return known[id(node)]


def _parse(text: str) -> Any:
    """``text`` as YAML. Raises `yaml.YAMLError` for whatever is wrong with it."""
    try:
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if (mark := error.problem_mark) else ""
        raise yaml.YAMLError(f"{place}{error.problem}") from None
    except RecursionError:
        raise yaml.YAMLError("nested too deeply, or an alias stands in what it stands for") from None
    except (ValueError, LookupError, AttributeError) as error:  # what the constructors raise for 2024-13-01 or !!bool maybe
        raise yaml.YAMLError(f"a value is not what it looks like: {error}") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        raw = _parse(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: not valid YAML ({_in_one_line(error)})") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: must hold keys such as 'name' and 'output', but holds {short(raw)}")
    return raw


def _apply(raw: dict[str, Any], override: str) -> str | None:
    """Set one ``key.sub=value`` in ``raw``; return the mistake if it cannot be done."""
    place, equals, text = override.partition("=")
    *sections, last = place.split(".")
    if not equals or not all([*sections, last]):
        return f"override '{override}' is not of the form key.sub=value"
    node: Any = raw
    try:
        for part in sections:
            key: Any = _key(node, part)
            if isinstance(node, dict) and node.get(part) is None:
                node[part] = {}
            node = node[key]
        node[_key(node, last)] = _value(text)
    except LookupError as error:
        return f"override '{override}': {error.args[0]}"
    return None


def _value(text: str) -> Any:
    """``text`` as YAML."""
    try:
        return _parse(text)
    except yaml.YAMLError as error:
        return _Unreadable(text, _in_one_line(error))


def _in_one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _key(node: Any, part: str) -> str | int:
    """``part`` of a dotted key as what it is in ``node``: a key or a place. Raises `LookupError` if it cannot be there."""
    if isinstance(node, dict):
        return part
    if not isinstance(node, list):
        raise LookupError(f"there is no '{part}' in {short(node)}")
    if part not in map(str, range(len(node))):
        raise LookupError(f"'{part}' is not a place in a list of {len(node)}, counted from 0")
    return int(part)


def _validate(schema: type[Schema], raw: dict[str, Any]) -> tuple[Schema | None, list[str]]:
    """Check ``raw``; returns the recipe, None if there is none, and a line per mistake, whatever else is wrong."""
    mistakes: Mistakes = {place: _nothing_there(schema, place, value) for place, value in _without_value(raw)}
    aside = list(mistakes)  # the places at which stand-ins are
    for attempt in range(ATTEMPTS):
        try:
            recipes = [schema.model_validate(one) for one in with_stand_ins(schema, raw, aside)]
            return recipes[0], [*_lines(mistakes.items()), *_lines(_contradictions(recipes, mistakes))]
        except ValidationError as error:
            found = refused(schema, error)
            mistakes = found | mistakes if not attempt else mistakes  # later ones come of what was taken out
            aside += found
    return None, _lines(mistakes.items())


def _contradictions(recipes: Sequence[WholeRecipe], mistakes: Mistakes) -> Iterator[tuple[Place, str]]:
    """What is said of every one of ``recipes``, so not because of its stand-ins, and not about a value refused already."""
    found, *others = ([*recipe.contradictions()] for recipe in recipes)
    for key, text in found:
        place = tuple(key.split("."))
        known = any(place[: len(other)] == tuple(map(str, other)) for other in mistakes)
        if not known and all((key, text) in other for other in others):
            yield place, f": {text}"


def _nothing_there(schema: type[WholeRecipe], place: Place, value: Any) -> str:
    """What is told of what `_without_value` finds."""
    if isinstance(value, _Unreadable):
        return f"={short(value)}: is not valid YAML ({value.reason}); quote it"
    return f": must be given, as in {dotted(place)}={'[VALUE,..]' if is_list(schema, place) else 'VALUE'}"


def _lines(mistakes: Iterable[tuple[Place, str]]) -> list[str]:
    return [f"{dotted(place)}{text}" for place, text in mistakes]


def _without_value(node: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """The places of all ``???`` and of what an override could not give, and what is there."""
    if node == MUST_BE_GIVEN or isinstance(node, _Unreadable):
        yield place, node
    items: Any = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in items:
        yield from _without_value(child, (*place, key))
