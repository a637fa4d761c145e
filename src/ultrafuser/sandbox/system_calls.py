"""The system calls that a program may make, with their numbers on x86_64 and on aarch64 (None: it has no such call).

They are what the standard library needs to compute, to handle files, to wait, and to run other programs. All others are as if the
kernel did not have them, those of kernels to come too: sockets, tracing, other processes' memory, mounts and namespaces, users
and capabilities, keys, io_uring, BPF, performance counters, shared memory and queues, watching files, sessions and groups of
processes, modules. What is left out though it looks harmless acts on other processes of the same user (priorities, CPU affinity),
or outlives a program (`setsid`). `clone3` passes its flags in memory, where a filter cannot look; the C library does without.
"""

from __future__ import annotations

Condition = tuple[int, int, tuple[int, ...]]  # argument, mask, values

X86_64, AARCH64 = 0, 1  # the columns
# fmt: off
MEMORY = {
    "brk": (12, 214), "mmap": (9, 222), "munmap": (11, 215), "mprotect": (10, 226), "mremap": (25, 216), "madvise": (28, 233),
    "msync": (26, 227), "membarrier": (324, 283),
}
FILES = {
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67), "pwrite64": (18, 68),
    "preadv": (295, 69), "pwritev": (296, 70), "preadv2": (327, 286), "pwritev2": (328, 287), "lseek": (8, 62),
    "open": (2, None), "openat": (257, 56), "creat": (85, None), "close": (3, 57), "close_range": (436, 436),
    "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24), "pipe": (22, None), "pipe2": (293, 59), "fcntl": (72, 25),
    "ioctl": (16, 29), "fsync": (74, 82), "fdatasync": (75, 83), "ftruncate": (77, 46), "fallocate": (285, 47),
    "fadvise64": (221, 223), "flock": (73, 32), "sendfile": (40, 71), "copy_file_range": (326, 285),
    "stat": (4, None), "fstat": (5, 80), "lstat": (6, None), "newfstatat": (262, 79), "statx": (332, 291), "statfs": (137, 43),
    "fstatfs": (138, 44), "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439), "readlink": (89, None),
    "readlinkat": (267, 78), "getdents": (78, None), "getdents64": (217, 61), "getcwd": (79, 17), "chdir": (80, 49),
    "fchdir": (81, 50), "umask": (95, 166), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None),
    "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276), "link": (86, None), "linkat": (265, 37),
    "symlink": (88, None), "symlinkat": (266, 36), "unlink": (87, None), "unlinkat": (263, 35),
}
ATTRIBUTES = {  # of files: mode, owner, times and the like
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "chown": (92, None), "fchown": (93, 55), "lchown": (94, None),
    "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    "getxattr": (191, 8), "lgetxattr": (192, 9), "fgetxattr": (193, 10), "listxattr": (194, 11), "llistxattr": (195, 12),
    "flistxattr": (196, 13), "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7),
}
WAITING = {
    "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72), "epoll_create": (213, None),
    "epoll_create1": (291, 20), "epoll_ctl": (233, 21), "epoll_wait": (232, None), "epoll_pwait": (281, 22),
    "epoll_pwait2": (441, 441), "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "pause": (34, None), "alarm": (37, None),
    "getitimer": (36, 102), "setitimer": (38, 103), "futex": (202, 98),
}
TIME_AND_CHANCE = {
    "clock_gettime": (228, 113), "clock_getres": (229, 114), "gettimeofday": (96, 169), "time": (201, None),
    "getrandom": (318, 278),
}
SIGNALS = {
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136),
    "rt_sigsuspend": (130, 133), "rt_sigtimedwait": (128, 137), "sigaltstack": (131, 132), "restart_syscall": (219, 128),
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131),
}
NEW_PROCESSES = {"fork": (57, None), "vfork": (58, None), "clone": (56, 220)}
PROCESSES = {
    "execve": (59, 221), "exit": (60, 93), "exit_group": (231, 94), "wait4": (61, 260), "waitid": (247, 95),
    "set_tid_address": (218, 96), "set_robust_list": (273, 99), "rseq": (334, 293), "arch_prctl": (158, None),
    "prctl": (157, 167), "getpid": (39, 172), "gettid": (186, 178), "getppid": (110, 173), "getpgid": (121, 155),
    "getpgrp": (111, None), "getsid": (124, 156), "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176),
    "getegid": (108, 177), "getresuid": (118, 148), "getresgid": (120, 150), "getgroups": (115, 158), "getrusage": (98, 165),
    "getrlimit": (97, 163), "setrlimit": (160, 164), "prlimit64": (302, 261), "times": (100, 153), "getpriority": (140, 141),
    "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "sched_getparam": (143, 121), "sched_getscheduler": (145, 120),
    "sched_get_priority_max": (146, 125), "sched_get_priority_min": (147, 126), "getcpu": (309, 168), "uname": (63, 160),
    "sysinfo": (99, 179),
}
SOCKET_PAIRS = {  # of which every event loop of `asyncio` has one
    "socketpair": (53, 199), "sendto": (44, 206), "recvfrom": (45, 207), "shutdown": (48, 210), "getsockname": (51, 204),
    "getpeername": (52, 205), "getsockopt": (55, 209),
}
# fmt: on
NUMBERS = MEMORY | FILES | ATTRIBUTES | WAITING | TIME_AND_CHANCE | SIGNALS | NEW_PROCESSES | PROCESSES | SOCKET_PAIRS

NEW_NAMESPACES_OR_PARENT = 0x7E020000 | 0x00008000  # seven kinds, or one that is our supervisor's child
# Not 0o1000: a file opened for reading, and emptied, which an old Landlock lets pass.
OPEN_WAYS = (0, 1, 2, 3, 0o1001, 0o1002, 0o1003)
CLOSE_ON_EXEC_NOT_BLOCKING = 0o2000000 | 0o4000
ANY = 0xFFFFFFFF
AF_UNIX, SOCK_STREAM = 1, 1


def conditions(own: int) -> dict[str, list[Condition]]:
    """What must hold for a call to be allowed: this argument, under this mask, is one of these values. ``own``: process id."""
    itself: list[Condition] = [(0, ANY, (own,))]
    opening = (0o1003, OPEN_WAYS)
    return {
        "clone": [(0, NEW_NAMESPACES_OR_PARENT, (0,))],
        "open": [(1, *opening)],
        "openat": [(2, *opening)],
        # Duplicates, flags, locks and sizes of pipes. F_SETOWN and F_SETSIG could send any signal to anybody.
        "fcntl": [(1, ANY, (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030, 1031, 1032))],
        # TCGETS (`isatty`), TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX.
        "ioctl": [(1, ANY, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451))],
        "kill": itself,
        "tkill": itself,
        "tgkill": itself,
        "prctl": [(0, ANY, (15, 16))],  # names of threads; PR_SET_PDEATHSIG is what ends a program with us
        "prlimit64": [(0, ANY, (0,))],  # not those of other processes
        # A pair that is connected from its start. One for single messages could reach other sockets.
        "socketpair": [(0, ANY, (AF_UNIX,)), (1, ANY ^ CLOSE_ON_EXEC_NOT_BLOCKING, (SOCK_STREAM,))],
    }
