"""The first process in the sandbox: reads a job from standard input, shuts itself off as its level says, supervises, reports."""

from __future__ import annotations

import os

from . import calls, candidate, kernel, namespaces, nobody, program, tests, values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ROLES = {"program": program.supervise, "calls": calls.supervise, "candidate": candidate.supervise, "tests": tests.supervise}


def main() -> None:
    with open(0, "rb", closefd=False) as stdin:
        job = values.decode(stdin.read())
    os.set_inheritable(job["report"], False)
    kernel.process_control(kernel.PR_SET_PDEATHSIG, kernel.SIGKILL)
    if job["level"] == "namespaces":
        namespaces.enter(job["view"])
    nobody.become_nobody()
    job["rules"] = None
    if job["level"] == "landlock":
        from . import landlock

        job["rules"] = landlock.ruleset(job["view"], landlock.version())
    kernel.process_control(kernel.PR_SET_PDEATHSIG, kernel.SIGKILL)  # again, since a new user has lost it
    kernel.process_control(kernel.PR_SET_NO_NEW_PRIVS, 1)
    kernel.process_control(kernel.PR_SET_DUMPABLE, 0)  # so that a program of the same user can neither read nor trace us

    def report(value: Any) -> None:
        content = values.encode(value)
        os.write(job["report"], b"%d:" % len(content) + content)

    ROLES[job["role"]](job, report)
