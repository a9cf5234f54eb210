"""What `tunechat doctor` looks at on this machine. Each check says what it found and, if that is bad, the mend."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from ..settings import Settings
from .output import format_bytes

GIB = 1024**3
Status = Literal["ok", "warn", "fail", "skip"]


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. "fail" keeps tunechat from working, "warn" makes it slower or less safe, "skip" was not seen."""

    name: str
    status: Status
    detail: str


def machine_checks(settings: Settings) -> Iterator[Check]:
    """All checks of this machine, cheap ones first. The last ones import torch, which takes seconds."""
    yield _python()
    yield _processor()
    yield _memory()
    yield _home(settings.home)
    yield _disk(settings.home)
    yield _open_files()
    yield _compiler()
    yield from _packages()
    yield _kernels()
    yield _cuda()


def _python() -> Check:
    return Check("python", "ok", f"{platform.python_version()} at {sys.executable}")


def _processor() -> Check:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    flags = _cpu_flags()
    detail = f"{usable} usable cores, {platform.machine()}"
    if flags is None:
        return Check("processor", "skip", f"{detail}; its instruction sets could not be read")
    if "avx2" not in flags:
        return Check("processor", "warn", f"{detail}, no AVX2: the torch path serves, several times slower")
    return Check("processor", "ok", f"{detail}, AVX2" + (", AVX-512" if "avx512f" in flags else ""))


def _cpu_flags() -> frozenset[str] | None:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = next((line for line in lines if line.startswith("flags")), None)
    return None if found is None else frozenset(found.partition(":")[2].split())


def _memory() -> Check:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        # Only Linux tells what the page cache would give back; elsewhere the free pages have to do.
        free = max(free, 0)
    detail = f"{format_bytes(free)} available of {format_bytes(total)}"
    return Check("memory", "ok", detail) if free >= GIB else Check("memory", "warn", f"{detail}; 1 GiB is too little")


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _home(home: Path) -> Check:
    folder = _existing(home)
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        return Check("home", "fail", f"{home} cannot be written; set TUNECHAT_HOME to a folder that can")
    return Check("home", "ok", str(home))


def _disk(home: Path) -> Check:
    free = shutil.disk_usage(_existing(home)).free
    if free < GIB:
        return Check("disk", "warn", f"{format_bytes(free)} free where models go; 1 GiB is little even for a small one")
    return Check("disk", "ok", f"{format_bytes(free)} free where models go")


def _open_files() -> Check:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < 1024:
        return Check("open files", "warn", f"limit {soft}: few clients can connect at once; raise it with `ulimit -n`")
    return Check("open files", "ok", f"limit {'none' if soft == resource.RLIM_INFINITY else soft}")


def _compiler() -> Check:
    found = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if found is None:
        return Check("compiler", "warn", "none; without one an install cannot build the C kernels")
    return Check("compiler", "ok", found)


def _packages() -> Iterator[Check]:
    """Every dependency against the range that the package declares: its lower ends are the least safe versions."""
    from packaging.requirements import Requirement

    wrong, seen = [], 0
    for line in metadata.requires("tunechat") or ():
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        seen += 1
        try:
            installed = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(installed, prereleases=True):
            wrong.append(f"{requirement.name} {installed} is not {requirement.specifier}")
    if wrong:
        yield Check("packages", "fail", "; ".join(wrong) + "; install tunechat again with its constraints file")
    else:
        yield Check("packages", "ok", f"{seen} dependencies, none older than its least safe version")
    yield Check("torch", "ok", metadata.version("torch"))


def _kernels() -> Check:
    from ..kernels.library import why_missing

    reason = why_missing()
    return Check("kernels", "ok", "loaded") if reason is None else Check("kernels", "warn", f"not used: {reason}")


def _cuda() -> Check:
    import torch

    if not torch.cuda.is_available():
        return Check("cuda", "skip", "no usable GPU; the model runs on the CPU")
    names = {torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())}
    return Check("cuda", "ok", f"{torch.cuda.device_count()} x {', '.join(sorted(names))}")
