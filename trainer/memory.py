"""How much memory training takes, and how much there is for it."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from ..serve.contract.errors import TunechatError

_ROOT = Path("/")
# No limit is written as a number near the largest one.
_UNLIMITED = 1 << 60


class OutOfMemory(TunechatError):
    """Training does not fit into memory. The message names the keys that make it smaller."""

    code = "out_of_memory"
    http_status = 422


def used_memory(device: torch.device) -> int:
    """The most bytes there were at once: on the device for a GPU, else of this process in RAM, mapped ones included."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on the device or in main memory."""
    # What torch raises for main memory has no class of its own.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


class Gauge:
    """Measures what is used beyond the moment in which it is made. `free` is how many bytes there were then.

    `works` is false where the system does not tell; then `extra` is 0 and nothing may be concluded from it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.works = True
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._start = torch.cuda.memory_allocated(device)
            unused = torch.cuda.memory_reserved(device) - self._start
            self.free = torch.cuda.mem_get_info(device)[0] + unused
            return
        self.free = free_memory() or 0
        self._start = _status("VmRSS")
        try:
            # The peak begins anew at what there is now.
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            self.works = False
        self.works = self.works and self._start > 0 and self.free > 0

    def extra(self) -> int:
        """The most bytes there were since, beyond those of then."""
        if self._device.type == "cuda":
            return max(0, torch.cuda.max_memory_allocated(self._device) - self._start)
        return max(0, _status("VmHWM") - self._start) if self.works else 0


def free_memory(root: Path = _ROOT) -> int | None:
    """Bytes of main memory that can be had without swapping, the control group's limit heeded; None where unknown."""
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    rooms = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return min((*rooms, *_group_rooms(root))) if rooms else None


def _group_rooms(root: Path) -> Iterator[int]:
    """What each control group around this process has left."""
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        limit, usage = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        )
        # Within a container the path is often that outside of it, and the group itself is at the top.
        folder = top / path.lstrip("/")
        for group in (folder, *folder.parents):
            room = _room(group / limit, group / usage, group / "memory.stat")
            if room is not None:
                yield room
            if group == top:
                break


def _room(limit: Path, usage: Path, statistics: Path) -> int | None:
    try:
        most = limit.read_text(encoding="ascii").strip()
        if most == "max" or int(most) >= _UNLIMITED:
            return None
        used = int(usage.read_text(encoding="ascii"))
        words = (line.split() for line in statistics.read_text(encoding="ascii").splitlines())
        # Cached files make room when it is needed.
        cached = sum(int(value) for name, value in words if name in ("inactive_file", "active_file"))
        return max(0, int(most) - used + cached)
    except (OSError, ValueError):
        return None


def _status(name: str) -> int:
    """A figure of /proc/self/status, in bytes; 0 where there is none."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)
