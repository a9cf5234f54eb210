"""Threads that work on adapters beside requests, and give way to them."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable

logger = logging.getLogger(__name__)

_NICENESS = 4
# A step of the engine is as slow as the slowest of its threads, one for each core. With these a thread beside them
# takes a fifth of a core, in pieces that are shorter than a step.
_WORK = 0.001  # seconds of a core after which there is a rest, where the work can be interrupted that soon
_REST = 6.0  # seconds of rest for each second of work


class _Manners(threading.local):
    """What this thread knows of the requests beside it."""

    is_busy: Callable[[], bool] | None = None
    rested: float = 0.0  # the thread's own time at the end of its last rest


_manners = _Manners()


def yield_to_requests(is_busy: Callable[[], bool] | None = None) -> None:
    """Give this thread a smaller share of a contended core, and let it rest in `breathe` while `is_busy()`.

    The priority is only a little smaller, because this thread may hold the interpreter's lock when it is put aside,
    and whoever serves requests then waits for it. Only Linux has a priority for each thread; elsewhere the call would
    be about a process.
    """
    _manners.is_busy, _manners.rested = is_busy, time.thread_time()
    if sys.platform == "linux":
        thread = threading.get_native_id()
        try:
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS)
        except OSError as error:
            logger.warning("adapters are worked on at the priority of requests: %s", error.strerror)


def breathe() -> None:
    """Rests in proportion to what was worked since the last rest, if this thread yields and requests are running.

    Whatever may take long on such a thread calls it once a tensor or a chunk; on other threads it does nothing.
    """
    if _manners.is_busy is None:
        return
    worked = time.thread_time() - _manners.rested
    if worked >= _WORK:
        if _manners.is_busy():
            time.sleep(worked * _REST)
        _manners.rested = time.thread_time()


def as_this_thread() -> Callable[[], None]:
    """What a thread calls at its start that helps the current one; the system hands the priority on by itself."""
    is_busy = _manners.is_busy

    def begin() -> None:
        _manners.is_busy, _manners.rested = is_busy, time.thread_time()

    return begin
