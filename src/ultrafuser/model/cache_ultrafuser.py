"""The cache's two names: transformers 5.24 calls ``cache`` what was ``past_key_values``. Copied into every saved checkpoint.

Parameters here keep the former name, as earlier releases use the other for their paged caches. What is handed to the library
bears the name of the release that is installed.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.utils.deprecation import deprecate_kwarg

FORMER = "past_key_values"
CACHE = "cache" if "cache" in inspect.signature(BaseModelOutputWithPast).parameters else FORMER


def takes_cache(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let ``function(.., past_key_values=None, ..)`` be called, and looked at, under the name of the installed release.

    Since 5.24 the former name goes on working with the library's own warning.
    """
    if CACHE == FORMER:
        return function

    @functools.wraps(function)
    def renamed(*args: Any, **kwargs: Any) -> Any:
        if CACHE in kwargs:
            kwargs[FORMER] = kwargs.pop(CACHE)
        return function(*args, **kwargs)

    signature = inspect.signature(function)  # where ``generate`` looks for what it may pass
    shown = [p.replace(name=CACHE) if p.name == FORMER else p for p in signature.parameters.values()]
    vars(renamed)["__signature__"] = signature.replace(parameters=shown)
    warning: Callable[..., Any] = deprecate_kwarg(FORMER, "5.40.0", new_name=CACHE)(renamed)
    return warning
