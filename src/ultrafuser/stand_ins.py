"""Values in place of those that a recipe's schema refuses, so that the rest of the recipe can be judged all the same.

There are two versions of every stand-in, as unlike as the schema allows: a contradiction that is there with the one and with the
other does not come from them (`config.read_recipe`).
"""

from __future__ import annotations

import copy
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

Place = tuple[str | int, ...]  # ("train", "stages", 0, "steps")
KEY = "[key]"  # the last part of a place where pydantic refuses the key itself
VERSIONS = (0, -1)  # of all that is possible the first, the last
NUMBERS = (0, 0.5, 1, 10**9)
MOST = 2  # items in a list


def with_stand_ins(schema: type[BaseModel], raw: dict[str, Any], places: Sequence[Place]) -> list[dict[str, Any]]:
    """``raw`` with stand-ins at ``places``, in both versions; once, as it is, if there are none."""
    versions = VERSIONS if places else VERSIONS[:1]
    changed = [copy.deepcopy(raw) for _ in versions]
    for version, one in zip(versions, changed, strict=True):
        for place in places:
            _put(one, place, _stand_in(_kind_at(schema, place), version))
    return changed


def known_keys(schema: type, place: Place) -> Iterable[str]:
    """The keys that the section at ``place`` may have."""
    return _fields(_kind_at(schema, place))


def is_list(schema: type, place: Place) -> bool:
    """May a list stand at ``place``?"""
    return typing.get_origin(_bare(_kind_at(schema, place))) is tuple


def _put(node: Any, place: Place, value: Any) -> None:
    """Put ``value`` at ``place``; where none can be (`_NOTHING`), take out what is there."""
    if place[-1] == KEY:
        place, value = place[:-1], _NOTHING
    try:
        for part in place[:-1]:
            node = node[part]
        if value is not _NOTHING:
            node[place[-1]] = value
        elif place[-1] in node:
            del node[place[-1]]
    except (LookupError, TypeError):
        pass  # in something that has been replaced already


_NOTHING = object()


def _stand_in(kind: Any, version: int) -> Any:
    """Something that a value of this kind may be, `_NOTHING` if nothing is known."""
    possible = [value for value in _ideas(kind, version) if _fits(kind, value)] if kind is not None else []
    return possible[version] if possible else _NOTHING


def _ideas(kind: Any, version: int) -> Iterator[Any]:
    """What a value could be, whatever its limits."""
    yield None
    origin, inner, name = typing.get_origin(_bare(kind)), typing.get_args(_bare(kind)), "xy"[version]
    if fields := _fields(kind):
        yield {key: _stand_in(_of(field), version) for key, field in fields.items() if field.is_required()}
    elif origin is typing.Literal:
        yield from inner
    elif origin is tuple:
        yield from ([_stand_in(inner[0], version)] * count for count in range(MOST + 1))
    elif origin is dict:
        yield from ({}, {name: _stand_in(inner[1], version)})
    else:
        yield from (*NUMBERS, name, f"http://{name}")


def _fits(kind: Any, value: Any) -> bool:
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return False
    return True


def _kind_at(schema: type, place: Place) -> Any:
    """The type, with its limits, of what may stand at ``place``; None where nothing may."""
    kind: Any = schema
    for part in place:
        fields, inner = _fields(kind), typing.get_args(_bare(kind))
        if fields:
            kind = _of(fields[part]) if part in fields else None
        else:  # in a list or a mapping
            kind = inner[typing.get_origin(_bare(kind)) is dict] if inner else None
    return kind


def _fields(kind: Any) -> dict[str, FieldInfo]:
    """The fields of a section; none if it is something else."""
    bare = _bare(kind)
    if isinstance(bare, type) and issubclass(bare, BaseModel):
        return bare.model_fields
    return getattr(bare, "__pydantic_fields__", {})  # of a dataclass


def _of(field: FieldInfo) -> Any:
    """The type of a field with its limits."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def _bare(kind: Any) -> Any:
    """A type without its limits, and without the None that it may also be."""
    while (origin := typing.get_origin(kind)) in (Annotated, typing.Union, types.UnionType):
        inner = typing.get_args(kind)
        kind = inner[0] if origin is Annotated else next(one for one in inner if one is not type(None))
    return kind
