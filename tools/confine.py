"""The program that a confined child begins as: it gives up what it must not have, and becomes the program asked for.

Run by path: `python -I -S confine.py JSON`, with what `tools.processes` writes there. On Linux the program gets
namespaces of its own (no network, no other processes, a scratch folder of bounded size), Landlock rules that show it
nothing but the listed paths, and resource limits. What a kernel lacks is left out: this limits damage, and is no wall
against somebody who looks for a hole in the kernel.

Two processes: the first stays outside, ends the second at the deadline or when told to, and tells how it ended. The
second is the first process of its namespace, so the kernel ends everything in it together with it.

Exit status: the program's own, 124 at the deadline, 128 and the signal's number when a signal ended it, 126 when it
could not be run. Sources: namespaces(7), landlock(7), prctl(2), setrlimit(2).
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import time
from typing import Any, NoReturn

TIMED_OUT = 124
NOT_RUN = 126

_CLONE = 0x00020000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000  # mount, IPC, user, process and network
_SET_DEATH_SIGNAL, _NO_NEW_PRIVILEGES = 1, 38
_PRIVATE = 0x4000 | 0x40000  # MS_REC | MS_PRIVATE
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_FILE_RIGHTS = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14  # execute, write, read, truncate
_READ = 1 << 0 | 1 << 2 | 1 << 3  # execute, read a file, list a folder
_RIGHTS = ((1, 13), (2, 14), (3, 15), (5, 16))  # Landlock version, and how many rights on files it knows


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def main() -> NoReturn:
    spec: dict[str, Any] = json.loads(sys.argv[1])
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT})
    libc = ctypes.CDLL(None, use_errno=True)
    linux = sys.platform == "linux"
    if linux:
        libc.prctl(_SET_DEATH_SIGNAL, signal.SIGTERM, 0, 0, 0)
        _leave_namespaces(libc)
    child = os.fork()
    if child == 0:
        try:
            _become(spec, libc if linux else None)
        except (OSError, ValueError) as error:
            os.write(2, f"the program cannot be run: {error}\n".encode())
        os._exit(NOT_RUN)
    os._exit(_supervise(child, float(spec["seconds"])))


def _supervise(child: int, seconds: float) -> int:
    """Waits for the child; at the deadline, or when told to end, the kernel ends it and all that it started."""
    until = time.monotonic() + seconds
    while True:
        left = until - time.monotonic()
        if left > 0:
            told = signal.sigtimedwait({signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}, left)
            if told is not None and told.si_signo == signal.SIGCHLD:
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended == 0:
                    continue
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return TIMED_OUT if time.monotonic() >= until else 128 + signal.SIGTERM


def _leave_namespaces(libc: ctypes.CDLL) -> None:
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_CLONE) != 0:
        return
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        _write(f"/proc/self/{name}", text)
    libc.mount(b"none", b"/", None, _PRIVATE, None)


def _become(spec: dict[str, Any], libc: ctypes.CDLL | None) -> NoReturn:
    folder = str(spec["folder"])
    if libc is not None:
        libc.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        # Root is exempt from the limit on processes; the namespace has a limit of its own on newer kernels.
        _write("/proc/sys/kernel/pid_max", str(max(301, int(spec["processes"]))))
        libc.mount(b"tmpfs", folder.encode(), b"tmpfs", 0, f"size={int(spec['disk'])}".encode())
    os.chdir(folder)
    # The server, and the process that ends this one, come first.
    os.nice(10)
    for kind, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, int(spec["disk"])),
        (resource.RLIMIT_NOFILE, 256),
        (resource.RLIMIT_CPU, int(spec["seconds"]) + 1),
        (resource.RLIMIT_NPROC, int(spec["processes"])),
        (resource.RLIMIT_AS, int(spec["memory"])),
    ):
        _limit(kind, limit)
    if libc is not None:
        libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
        _restrict(libc, [str(path) for path in spec["readable"]], folder)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    argv = [str(word) for word in spec["argv"]]
    environment = {"PATH": "/usr/bin:/bin", "HOME": folder, "TMPDIR": folder, "LANG": "C.UTF-8"}
    os.execve(  # noqa: S606 - tools.processes makes the list
        argv[0],
        argv,
        {
            **environment,
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        },
    )


def _limit(kind: int, limit: int) -> None:
    hard = resource.getrlimit(kind)[1]
    bound = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(kind, (bound, bound))


def _restrict(libc: ctypes.CDLL, readable: list[str], folder: str) -> None:
    """Leaves the process `readable` to read and run, and `folder` to use, where the kernel has Landlock."""
    version = libc.syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return
    everything = (1 << max(count for least, count in _RIGHTS if version >= least)) - 1
    rules = _Ruleset(everything, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = libc.syscall(_CREATE_RULESET, ctypes.byref(rules), size, 0)
    if ruleset < 0:
        return
    for path, rights in ((folder, everything), *((path, _READ) for path in readable), ("/dev/null", _FILE_RIGHTS)):
        try:
            parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # a folder that this machine lacks, such as /lib64
        allowed = everything & (rights if os.path.isdir(path) else rights & _FILE_RIGHTS)
        libc.syscall(_ADD_RULE, ruleset, 1, ctypes.byref(_Beneath(allowed, parent)), 0)
        os.close(parent)
    libc.syscall(_RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)


def _write(path: str, text: str) -> bool:
    try:
        with open(path, "w") as file:
            file.write(text)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main()
