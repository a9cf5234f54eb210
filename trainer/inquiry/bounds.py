"""How much of the machine this process may have: little, and after everybody else."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

_SET_DEATH_SIGNAL = 1
_NICENESS = 15
_MOST_WRITTEN = 64 << 20
_MOST_FILES = 256


def bound(memory: int, seconds: int) -> None:
    """Bounds this process to `memory` bytes of addresses and `seconds` of a core; the system ends it beyond.

    It makes way for all others, and is killed when the thread that has started it ends. It writes no core file.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    os.nice(_NICENESS)
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, _MOST_WRITTEN),
        (resource.RLIMIT_NOFILE, _MOST_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        # A second more before the end that cannot be caught.
        resource.setrlimit(kind, (most, min(most + 1, hard) if hard != resource.RLIM_INFINITY else most + 1))
