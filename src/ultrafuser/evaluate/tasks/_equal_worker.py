"""The process behind `equal.py`: reads pairs of answers from standard input, writes "equal" or "unequal", a line each.

Run as a file, so that it needs neither this package nor torch.
"""

from __future__ import annotations

import json
import logging
import resource
import signal
import sys

MEMORY_BYTES = 2 * 2**30


def main() -> None:
    # The directory of this file is not meant to be imported from.
    sys.path.pop(0)
    from math_verify import LatexExtractionConfig, parse, verify

    logging.disable(logging.CRITICAL)
    job = json.load(sys.stdin)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    # LaTeX only: math-verify's other reader hands text to an evaluator.
    reader = [LatexExtractionConfig()]
    print("ready", flush=True)
    for pair in job["pairs"]:
        # Nobody catches this signal, so it ends the process, in C code too. It counts CPU time: a busy machine costs nothing.
        signal.setitimer(signal.ITIMER_PROF, job["cpu_seconds"])
        try:
            reference, answer = (parse(f"${text}$", extraction_config=reader, parsing_timeout=None) for text in pair)
            equal = verify(reference, answer, timeout_seconds=None)
        except Exception:
            equal = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        print("equal" if equal else "unequal", flush=True)


if __name__ == "__main__":
    main()
