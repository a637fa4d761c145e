"""Groups of options: a command takes one dataclass where Typer knows only single options.

The fields of such a dataclass are declared as parameters are, ``Annotated[type, typer.Option(..)] = default``, and the command
takes it as a keyword-only parameter. In ``--help`` they stand in a panel of their own, whose title is the first line of the
dataclass's docstring.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from inspect import Parameter
from typing import Annotated, Any, get_type_hints

from typer.models import OptionInfo


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` as Typer takes it: with the options of its groups in the place of each group."""
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {name: one.annotation for name, one in signature.parameters.items() if is_dataclass(one.annotation)}

    @functools.wraps(command)
    def with_single_options(**given: Any) -> None:
        made = {name: group(**{one.name: given.pop(one.name) for one in fields(group)}) for name, group in groups.items()}
        command(**given, **made)

    single = [option for one in signature.parameters.values() for option in _options(one)]
    with_single_options.__signature__ = signature.replace(parameters=single)  # type: ignore[attr-defined]
    return with_single_options


def _options(parameter: Parameter) -> Iterator[Parameter]:
    """What Typer sees of a parameter."""
    group = parameter.annotation
    if not is_dataclass(group):
        yield parameter
        return
    title, hints = str(inspect.getdoc(group)).partition("\n")[0].rstrip("."), get_type_hints(group, include_extras=True)
    for one in fields(group):
        kind = hints[one.name]
        option: OptionInfo = copy.copy(kind.__metadata__[0])  # several groups share the original
        option.rich_help_panel = title
        yield Parameter(one.name, Parameter.KEYWORD_ONLY, default=one.default, annotation=Annotated[kind.__origin__, option])
