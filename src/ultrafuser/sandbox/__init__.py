"""Run programs that a model wrote. Nothing generated ever runs in our own process.

`run_program` shows what a program prints, `call_functions` what its functions return (many tiny programs, fast), `run_tests`
whether it passes its tests. How far a program is held back depends on the machine; `isolation` says which level it offers, and
`require_level` whether that is enough. The best first:

**"bubblewrap"** (installed, and works) and **"namespaces"** (the same by our own calls of unshare and mount; Linux 5.12, user
namespaces allowed or root). A program has user, process, network, IPC and mount namespaces of its own. Stopped are: the network,
abstract sockets too; seeing, signalling or tracing any process of ours; reading our environment variables, home, /etc/passwd,
data or installed packages (only Python's standard library, /usr and the system's libraries are there, read-only); writing
anywhere but into an empty working directory in memory, of limited size; processes that outlive it. Whoever starts it as root
is not root inside. *Not stopped:* reading what anybody may read below /usr; measuring how fast the machine is.

**"landlock"** (Linux 5.13, and the system call filter, see below; needs no rights, so it works in most containers). Stopped are:
reading, writing, moving, deleting or listing any file but those named above and an empty working directory of its own (on disk; a
program that puts too much there is killed a moment later); changing the mode, owner or times of any file, its own too; the
network and sockets of all kinds; signalling or tracing any process but itself; reading environment variables or memory of ours.
/proc is shut altogether. *Not stopped:* what the levels above do not stop either; asking whether a file or process exists whose
name or number it guesses, how large it is and whose, and where a link leads; listing the names (not reading the files) of
installed packages; filling the disk for about a tenth of a second.

**"limits"** (none of these works). It stops programs that are wrong, not those that are hostile, so it is for the restricted
mode (below). Other programs are refused unless the environment variable ULTRAFUSER_SANDBOX is "limits", say in a container that
holds nothing else; then a warning is given once. (The variable names the weakest level that is enough, for programs of all
kinds; the best that works is used.) Stopped are endless loops, sleeps, memory hogs, endless output, large and many files, fork
bombs; our environment is not handed on, the working directory is an empty one. Where there is a system call filter, so are the
network and signals to other processes. Started by root it runs as a user of its own, which can neither signal nor trace nor
overwrite what is ours. *Not stopped:* reading whatever anybody may read (and where Python is installed in a place that only
root can read, whatever root can), writing where anybody may write. If we are an ordinary user (or a root that may not change
its user), a program can read and delete all files that this user can, and read the memory and environment of its other
processes; without a filter it can kill them, too.

**The system call filter** (x86_64 and aarch64, where the kernel has seccomp) is on at every level. It leaves a program 170 calls
(138 on aarch64; `system_calls.py`): computing, files, waiting, signals to itself, starting programs. All the rest is as if
the kernel did not have it, what kernels to come add as well: sockets (but for connected pairs), tracing, other processes' memory,
namespaces, mounts, users, keys, io_uring, BPF, performance counters, shared memory and message queues of System V. *Not stopped:*
an attack on the kernel through the calls that are left, or on the processor. A machine that can be lost stops these. On other
architectures there is no filter and no level "landlock"; the kernel's whole interface is then open at all levels.

**At every level** a program has limits (`Limits`) on wall and CPU time, memory, size of files, output, open files, processes
(none, by default); no right that a set-user-ID program would give; and it ends when we end. The tests of `run_tests` run in
another sandbox than the program, and know its functions only by messages that carry plain values (`inside/values.py`). So a
program can fake a pass neither by leaving early nor by what it changes in its own interpreter, nor by objects that are equal to
everything; nor can it read the tests or the values they expect. (Under "limits" as an ordinary user: unless it attacks the other
process by other means.) What it can do is tell from the arguments that it is being tested. `ProgramResult.ok` is weaker: it needs
the program to come to its own end, which a program that searches the interpreter's frames could fake; nothing rests on it but
what the program says of itself.

The *restricted mode* (`call_functions`; ``imports`` of `run_program`) comes on top. It refuses, by name, files, ``eval``, all
imports that are not in a list, and attributes that begin with an underscore or lead into the interpreter; and once the program
runs, nothing more is imported for it (rare codecs neither). This stops every way out that we know of, if none of the listed
modules is one. *Not stopped* (under "limits"): faults of the interpreter, and ways yet to be found.
"""

from ultrafuser.sandbox.calls import FunctionCalls, call_functions
from ultrafuser.sandbox.levels import Isolation, Programs, isolation, require_level
from ultrafuser.sandbox.limits import Limits
from ultrafuser.sandbox.programs import ProgramResult, run_program
from ultrafuser.sandbox.tested import TestedProgram, TestVerdict, run_tests

__all__ = [
    "FunctionCalls",
    "Isolation",
    "Limits",
    "ProgramResult",
    "Programs",
    "TestVerdict",
    "TestedProgram",
    "call_functions",
    "isolation",
    "require_level",
    "run_program",
    "run_tests",
]
