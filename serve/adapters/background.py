"""Threads that work on adapters beside requests, and give way to them."""

from __future__ import annotations

import logging
import os
import sys
import threading

logger = logging.getLogger(__name__)

_NICENESS = 4


def yield_to_requests() -> None:
    """Give this thread, and those that it starts, a smaller share of a contended core.

    A step of the engine is as slow as the slowest of its threads, and there is one for each core: reading and hashing
    beside it takes a core from one of them. Only a little, because this thread may hold the interpreter's lock when it
    is put aside, and whoever serves requests then waits for it. Only Linux has a priority for each thread; elsewhere
    the call would be about a process.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        try:
            os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + _NICENESS)
        except OSError as error:
            logger.warning("adapters are worked on at the priority of requests: %s", error.strerror)
