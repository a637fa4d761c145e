"""What a schema refuses, in plain words: the place, the value, what it must be, what may have been meant.

pydantic finds the mistakes; its words for them, which speak of inputs and types, are replaced here. `config.py` tells all
mistakes of a recipe; where Python code makes a section that is `told_plainly`, or calls a function that is `called_plainly`, the
first mistake is a `UserError`.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, Literal, TypeVar

from pydantic import BeforeValidator, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticKnownError

from ultrafuser.errors import UserError, did_you_mean
from ultrafuser.stand_ins import KEY, Place, known_keys

Mistakes = dict[Place, str]  # the text that follows the place
Section = TypeVar("Section", bound=type)
Function = TypeVar("Function", bound=Callable[..., Any])

WANTED = {
    **dict.fromkeys(("int_type", "int_parsing", "int_parsing_size", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("string_type", "string_unicode"), "must be text, in quotes if need be"),
    **dict.fromkeys(("model_type", "dataclass_type", "dict_type"), "must be keys with their values"),
    **dict.fromkeys(("tuple_type", "sequence_str", "is_instance_of"), "must be a list"),
    "unexpected_positional_argument": "must be given by its name",
    "finite_number": "must be finite",
    "greater_than_equal": "must be at least {ge:g}",
    "greater_than": "must be above {gt:g}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be below {lt:g}",
    "too_short": "must have at least {min_length}",
    "too_long": "must have at most {max_length}",
    "string_too_short": "must have a length of at least {min_length}",
    "string_pattern_mismatch": "must be letters, digits, '-', '_' and '.' only",
    "literal_error": "must be {expected}",
}
UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument", "invalid_key")


def refused(schema: type, error: ValidationError) -> Mistakes:
    """What pydantic found, but for what it says about a whole because of a part, such as a list too short without the part."""
    found = {tuple(details["loc"]): _describe(schema, details) for details in error.errors()}
    return {place: text for place, text in found.items() if not any(place == other[: len(place)] != other for other in found)}


def told_plainly(section: Section) -> Section:
    """For a dataclass of pydantic's: what its constructor refuses is a `UserError`, not pydantic's. A recipe does not call it."""
    construct: Callable[..., None] = section.__init__  # type: ignore[misc]
    names: dict[str | int, str] = dict(enumerate(field.name for field in fields(section) if not field.kw_only))

    def __init__(self: Any, *args: Any, **given: Any) -> None:
        try:
            construct(self, *args, **given)
        except ValidationError as error:
            place, text = next(iter(refused(section, error).items()))
            place = (names.get(place[0], place[0]), *place[1:])  # of what was given by its place pydantic says only that
            name = (dict(zip(names.values(), args, strict=False)) | given).get("name")
            where = f"{section.__name__.lower()} '{name}': " if name else ""
            raise UserError(f"{where}{dotted(place)}{text}") from None

    section.__init__ = __init__  # type: ignore[misc]
    return section


def called_plainly(function: Function) -> Function:
    """For a public function: an argument that is not of its declared type, or an empty text, is a `UserError` that names it."""
    signature = inspect.signature(function, eval_str=True)

    @functools.wraps(function)
    def checked(*args: Any, **given: Any) -> Any:
        for name, value in signature.bind(*args, **given).arguments.items():
            kind = signature.parameters[name].annotation
            if isinstance(value, str) and not value.strip():
                raise UserError(f"{name}={value!r}: is empty")
            if not _is_of(kind, value):
                told = re.sub(r"\b(\w+\.)+", "", inspect.formatannotation(kind))  # without the names of modules
                hint = f", such as [{short(value)}]" if _is_of(kind, [value]) else ""
                raise UserError(f"{name}={short(value)}: must be {told}{hint}")
        return function(*args, **given)

    checked.__signature__ = signature  # type: ignore[attr-defined]
    return checked  # type: ignore[return-value]


def _is_of(kind: Any, value: Any) -> bool:
    """Is ``value`` of this type as it is, not only when converted?"""
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = list(value)  # strictly, pydantic takes no other kinds for a sequence
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


def in_our_words(details: ErrorDetails) -> str:
    """What a value must be; what a check of ours, or of the command line's, says about it stays as it is."""
    context = details.get("ctx", {})
    if details["type"] == "value_error":
        return str(context["error"])
    return WANTED[details["type"]].format(**context) if details["type"] in WANTED else details["msg"]


def not_a_boolean(kind: Literal["int_type", "float_type"]) -> BeforeValidator:
    """Refuses true and false where a number is meant, which to Python are 1 and 0; ``yes`` and ``on`` are YAML's true."""

    def check(value: Any) -> Any:
        if isinstance(value, bool):
            raise PydanticKnownError(kind)
        return value

    return BeforeValidator(check)


def dotted(place: Place) -> str:
    """``train.stages.0.steps``."""
    return ".".join(str(part) for part in place if part != KEY)


def short(value: Any) -> str:
    """``value`` as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _describe(schema: type, details: ErrorDetails) -> str:
    place, value, context = details["loc"], details["input"], details.get("ctx", {})
    if details["type"] in UNKNOWN_KEY:
        return f": unknown key{did_you_mean(str(place[-1]), known_keys(schema, place[:-1]))}"
    if details["type"] == "missing":
        return ": is missing"
    if details["type"] == "value_error":  # from a check of ours, and without the value: a URL may hold a password
        return f": {in_our_words(details)}"
    wanted = in_our_words(details)
    if place[-1] == KEY:
        return f": the key {wanted}"
    allowed = context.get("expected", "").replace(" or ", ", ").replace("'", "").split(", ")
    return f"={short(value)}: {wanted}{did_you_mean(str(value), filter(None, allowed))}"
