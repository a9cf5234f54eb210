"""Why a trainer's process died, as its user should read it."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from pathlib import Path

from .job import JobError

_OUT_OF_MEMORY = re.compile(r"\b(OutOfMemoryError|MemoryError|out of memory|can't allocate memory)\b", re.IGNORECASE)
_DISK_FULL = re.compile(r"No space left on device|\bENOSPC\b|disk is full", re.IGNORECASE)
_CGROUP_EVENTS = Path("/sys/fs/cgroup/memory.events")


def kills_for_memory(events: Path = _CGROUP_EVENTS) -> int | None:
    """How many processes of this group the kernel has killed because memory was used up; None where it does not say."""
    try:
        text = events.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return None
    found = re.search(r"^oom_kill (\d+)$", text, re.MULTILINE)
    return int(found[1]) if found else None


def reason(status: int, lines: Sequence[str], kills_before: int | None, kills_after: int | None) -> JobError:
    """The reason of an exit that nobody asked for: `status` is negative for a signal, `lines` are its last."""
    code, what = "trainer_failed", _ending(status)
    text = "\n".join(lines)
    if (
        kills_before is not None
        and kills_after is not None
        and kills_after > kills_before
        and status == -signal.SIGKILL
    ):
        code, what = "out_of_memory", "the machine's memory was used up, and the system killed the training"
    elif _OUT_OF_MEMORY.search(text):
        code, what = "out_of_memory", f"memory was used up, and {what}"
    elif _DISK_FULL.search(text):
        code, what = "insufficient_storage", f"the disk is full, and {what}"
    elif status == -signal.SIGKILL:
        what += "; the system does so when memory is used up"
    if code == "out_of_memory":
        what += "; a smaller batch_tokens needs less"
    if lines:
        what += f". Its last lines: {' | '.join(lines)}"
    return JobError(code=code, message=what)


def _ending(status: int) -> str:
    if status >= 0:
        return f"the training ended with exit status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"the training was killed by {name}"
