r"""Are two answers to a MATH problem the same? ``\frac12`` and ``0.5``, ``(x+1)^2`` and ``x^2+2x+1``.

Answers that differ only in spelling are equal at once. The rest go to Hugging Face's math-verify, in a process of its own
(`_equal_worker.py`): its time limits need signals and so the main thread, they cannot stop a computation inside C code, and a
model may well write 9^{9^{9^9}}. The process that computes too long is killed, that pair is unequal, and the rest go on.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

WORKER = Path(__file__).with_name("_equal_worker.py")
LONGEST = 1000  # characters; a longer "answer" is none


def equal_answers(pairs: Sequence[tuple[str, str]], *, cpu_seconds: float = 5.0) -> list[bool]:
    """For every pair (reference, answer), both LaTeX, whether they mean the same; at most ``cpu_seconds`` on each."""
    verdicts = [_spelling(reference) == _spelling(answer) for reference, answer in pairs]
    open_pairs = [number for number, (_, answer) in enumerate(pairs) if not verdicts[number] and len(answer) <= LONGEST]
    while open_pairs:
        answered = _ask_worker([pairs[number] for number in open_pairs], cpu_seconds)
        for number, verdict in zip(open_pairs, answered, strict=False):
            verdicts[number] = verdict
        # Where it stopped short, the next pair killed it: that one stays unequal.
        open_pairs = open_pairs[len(answered) + 1 :]
    return verdicts


def _ask_worker(pairs: Sequence[tuple[str, str]], cpu_seconds: float) -> list[bool]:
    """Verdicts from a fresh process; fewer than ``pairs`` if it died."""
    job = json.dumps({"pairs": list(pairs), "cpu_seconds": cpu_seconds})
    done = subprocess.run([sys.executable, str(WORKER)], input=job, text=True, capture_output=True)
    lines = done.stdout.split()
    if not lines or lines[0] != "ready":
        raise RuntimeError(f"math-verify did not start: {done.stderr[-2000:]}")
    return [line == "equal" for line in lines[1:]]


def _spelling(answer: str) -> str:
    r"""The answer without what never changes its meaning: spaces, ``\left``, ``\dfrac``, a final full stop."""
    answer = re.sub(r"\\(?:left|right|displaystyle)(?![a-zA-Z])|\\[!,;: ]|[\s$]", "", answer)
    return re.sub(r"\\[dt]frac", r"\\frac", answer).rstrip(".")
