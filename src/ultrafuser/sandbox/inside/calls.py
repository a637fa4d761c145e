"""Many little programs, each in a fork of its own, each with one function that is called many times."""

from __future__ import annotations

import os

from .confine import run_confined
from .program import execute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def supervise(job: dict[str, Any], report: Callable[[Any], None]) -> None:
    """Reports the list of returned values as JSON, for each call in turn; what is not JSON where it failed."""
    import json
    from functools import partial

    from . import restricted  # noqa: F401 - imported here once, not in every fork

    def work(call: dict[str, Any], result: int) -> None:
        try:
            function = execute(call["source"], job["imports"])[call["function"]]
            values = [function(*arguments) for arguments in json.loads(call["arguments"])]
            os.write(result, json.dumps(values).encode())
        finally:
            os._exit(0)  # at once: the interpreter's orderly end takes as long as a whole call

    for call in job["calls"]:
        _, _, written = run_confined(partial(work, call), job, most=job["limits"]["output_bytes"])
        report(written)
