"""Does the Python of an answer run? Its blocks run as one program in the sandbox, in the order in which the answer shows them.

Only what the program itself gets wrong counts. It is not judged where it needs what the sandbox does not have: installed
packages, input, files, the network, a screen, more time.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from ultrafuser.sandbox import Limits, run_program
from ultrafuser.synth.quality.code import NOTEBOOK, PROMPT, PYTHON, python_problem
from ultrafuser.synth.quality.markdown import read_markdown

ERROR = re.compile(r"[\w.]+(?:Error|Exception|Exit)\b")  # the last line of a traceback
# Exceptions that tell of the sandbox rather than of the program.
OUTSIDE = re.compile(
    r"^(?:ModuleNotFoundError|ImportError|EOFError|FileNotFoundError|PermissionError|ConnectionError|ConnectionRefusedError|OSError|"
    r"TimeoutError|MemoryError|BlockingIOError|SystemExit|KeyboardInterrupt|[\w.]*URLError|[\w.]*gaierror|_?tkinter\.\w+|[\w.]*TclError)\b"
)


def program_problems(texts: Sequence[str], *, limits: Limits | None = None, workers: int = 2) -> list[str | None]:
    """For every answer: why its Python does not run, or None; also None if there is no Python or it cannot be judged.

    ``workers`` programs run at once, within ``limits`` each (default: 5 seconds, 512 MB). Raises UserError where they
    may not be run (`sandbox.require_level`).
    """
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda text: program_problem(text, limits=limits), texts))


def program_problem(text: str, *, limits: Limits | None = None) -> str | None:
    """As `program_problems`, for one answer."""
    program = python_program(text)
    if program is None:
        return None
    result = run_program(program, limits=limits)
    if result.ok or result.timed_out:
        return None
    error = next(filter(ERROR.match, reversed(result.stderr.splitlines())), "")
    return None if not error or OUTSIDE.match(error) else f"code does not run: {error[:120]}"


def python_program(text: str) -> str | None:
    """The Python blocks of an answer one after another; None if there are none, or one is no program (a session, a fragment)."""
    blocks = [block.code for block in read_markdown(text).blocks if block.language in PYTHON]
    whole = all(not PROMPT.search(code) and not NOTEBOOK.search(code) and python_problem(code) is None for code in blocks)
    return "\n\n".join(blocks) if blocks and whole else None
