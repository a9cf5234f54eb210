"""Runs one command so that nothing of it outlives its server: `python guard.py COMMAND...`.

Standard input is the lifeline, a pipe that the server holds: at its end, whatever the reason, the command and all that
it has started are killed. So they are when the command ends by itself, sessions of their own or not: on Linux the guard
adopts what their parents leave behind, see prctl(2), PR_SET_CHILD_SUBREAPER. SIGTERM is passed on to the command alone,
whose workers are its own business. The guard ends as the command did, by the same status or the same signal.

It is run by its path, in an interpreter without site packages, so it may import nothing of ours.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

_SET_SUBREAPER = 36
_SET_DEATH_SIGNAL = 1
_CANNOT_START = 127
_ROUNDS = 200


def main(command: list[str]) -> int:
    """The command's exit status, negative for a signal."""
    _prctl(_SET_SUBREAPER, 1)
    woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda number, _: None)
    try:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_guard)  # noqa: S603
    except OSError as error:
        print(f"{command[0]} cannot be started: {error.strerror}", file=sys.stderr)
        return _CANNOT_START
    while child.poll() is None:
        while asked:
            child.send_signal(asked.pop())
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(woken, 4096)
        if 0 in ready and not os.read(0, 4096):
            break
    _kill_descendants()
    return child.wait()


def _die_with_guard() -> None:
    """In the child, before the command: a guard that is killed takes the command along. Safe with one thread alone."""
    _prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _kill_descendants() -> None:
    """Kills until none is left: what is started meanwhile is found in the next round."""
    for _ in range(_ROUNDS):
        found = _descendants()
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _descendants() -> list[int]:
    """All living processes under this one."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = entry.read_bytes().rpartition(b")")[2].split()[:2]
            if state not in (b"Z", b"X"):
                children.setdefault(int(parent), []).append(int(entry.parent.name))
    found, left = [], [os.getpid()]
    while left:
        below = children.get(left.pop(), [])
        found += below
        left += below
    return found


def end_as(status: int) -> None:
    """Ends this process by the exit status, or by the signal that a negative one names."""
    if status < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError, ValueError):
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    end_as(main(sys.argv[1:]))
