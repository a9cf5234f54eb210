"""Publishes a folder whole or not at all, and lets one process at a time make it.

The maker holds a file lock that the kernel drops when it dies, so a leftover `.tmp-` folder whose lock is free has no
owner and is swept.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".tmp-"
_LOCKS = ".locks"


@contextmanager
def exclusive(root: Path, name: str, waiting: Callable[[], None]) -> Iterator[None]:
    """Holds the lock of `name` under `root`; calls `waiting` once when another process has it."""
    with _lock_file(root, name) as descriptor:
        if not _try_lock(descriptor):
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextmanager
def publishing(target: Path) -> Iterator[Path]:
    """A fresh temporary folder beside `target`, renamed to it when the block ends without an error.

    Files in it must be synced by whoever writes them. Call it with the lock of `target.name` held.
    """
    staged = target.parent / f"{TEMPORARY}{target.name}-{uuid.uuid4().hex[:8]}"
    staged.mkdir(parents=True)
    try:
        yield staged
        sync_folder(staged)
        if target.exists():
            shutil.rmtree(target)
        staged.rename(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def write_synced(path: Path, content: bytes) -> None:
    """Writes a new file and waits until it is on disk."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Waits until the folder's own entries are on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(root: Path) -> None:
    """Removes temporary folders under `root` that a dead process left behind."""
    for leftover in root.glob(f"{TEMPORARY}*"):
        name = leftover.name.removeprefix(TEMPORARY).rpartition("-")[0]
        if not name or leftover.is_symlink() or not leftover.is_dir():
            continue
        with _lock_file(root, name) as descriptor:
            if _try_lock(descriptor):
                shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def _lock_file(root: Path, name: str) -> Iterator[int]:
    folder = root / _LOCKS
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
