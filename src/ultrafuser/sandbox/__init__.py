"""Run programs that a model wrote. Nothing generated ever runs in our own process.

`run_program` shows what a program prints, `call_functions` what its functions return (many tiny programs, fast), `run_tests`
whether it passes its tests. How far a program is held back depends on the machine; `isolation` says which level it offers:

**"bubblewrap"** (installed, and works) and **"namespaces"** (the same by our own calls of unshare and mount; Linux 5.12, user
namespaces allowed or root). A program has user, process, network, IPC and mount namespaces of its own. Stopped are: the network,
abstract sockets too; seeing, signalling or tracing any process of ours; reading our environment variables, home, /etc/passwd,
data or installed packages (only Python's standard library, /usr and the system's libraries are there, read-only); writing
anywhere but into an empty working directory in memory, of limited size; processes that outlive it. Whoever starts it as root
is not root inside. *Not stopped:* an attack on the kernel itself, whose whole interface is open (no system call filter);
reading what anybody may read below /usr; measuring how fast the machine is; taking memory by way of the kernel's own objects
(empty files, System V shared memory), which no limit on a process counts. A container or machine that can be lost stops these.

**"limits"** (neither works; `isolation` warns once). It stops programs that are wrong, not those that are hostile. Stopped are
endless loops, sleeps, memory hogs, endless output, large files, fork bombs; our environment is not handed on, the working
directory is an empty one. Started by root it runs as a user of its own, which can neither signal nor trace nor overwrite what is
ours. *Not stopped:* reading whatever anybody may read (and where Python is installed in a place that only root can read, whatever
root can), the network, filling the disk with many files, writing where anybody may write. If we are an ordinary user, a program
can do all that this user can: read and delete our files, kill and trace our processes. A root that may not change its user has
no limit on processes either.

**At every level** a program has limits (`Limits`) on wall and CPU time, memory, size of files, output, open files, processes
(none, by default); no right that a set-user-ID program would give; and it ends when we end. The tests of `run_tests` run in
another sandbox than the program, and know its functions only by messages that carry plain values (`inside/values.py`). So a
program can fake a pass neither by leaving early nor by what it changes in its own interpreter, nor by objects that are equal to
everything; nor can it read the tests or the values they expect. (Under "limits" as an ordinary user: unless it attacks the other
process by other means.) What it can do is tell from the arguments that it is being tested. `ProgramResult.ok` is weaker: it needs
the program to come to its own end, which a program that searches the interpreter's frames could fake; nothing rests on it but
what the program says of itself.

The *restricted mode* (`call_functions`; ``imports`` of `run_program`) comes on top and refuses, by name, files, ``eval``,
attributes that begin with an underscore and all imports that are not in a list. It is a fence against mistakes, not attackers.
"""

from ultrafuser.sandbox.calls import FunctionCalls, call_functions
from ultrafuser.sandbox.levels import Isolation, isolation
from ultrafuser.sandbox.limits import Limits
from ultrafuser.sandbox.programs import ProgramResult, run_program
from ultrafuser.sandbox.tested import TestedProgram, TestVerdict, run_tests

__all__ = [
    "FunctionCalls",
    "Isolation",
    "Limits",
    "ProgramResult",
    "TestVerdict",
    "TestedProgram",
    "call_functions",
    "isolation",
    "run_program",
    "run_tests",
]
