"""Files that are on disk when the call returns, and locks that die with their holder."""

from __future__ import annotations

import fcntl
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..contract.errors import UnsupportedFormat
from .background import breathe

TEMPORARY = ".tmp-"
_CHUNK = 1 << 20


def write_synced(path: Path, content: bytes) -> None:
    """Writes a new file and waits until it is on disk. Raises FileExistsError when there is one."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        _write_all(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_synced(path: Path, content: bytes) -> None:
    """Gives `path` this content: whoever reads it sees the old one or the new one, whole."""
    staged = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex}")
    try:
        write_synced(staged, content)
        os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)
    sync_folder(path.parent)


def copy_bounded(source: Path, target: Path, limit: int) -> None:
    """Copies a regular file into a new one, which is not on disk before it is synced.

    Raises UnsupportedFormat when `source` is a device, a pipe or a link, or larger than `limit` bytes.
    """
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(reading).st_mode):
            raise UnsupportedFormat(f"{source.name} is no ordinary file")
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            total = 0
            while count := _copy_some(reading, writing):
                total += count
                breathe()
                if total > limit:
                    raise UnsupportedFormat(f"{source.name} is larger than {limit} bytes")
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _copy_some(reading: int, writing: int) -> int:
    """Copies the next bytes, 0 at the end: inside the kernel where it can, which is several times as fast."""
    try:
        return os.copy_file_range(reading, writing, _CHUNK)
    except (AttributeError, OSError):
        chunk = os.read(reading, _CHUNK)
        _write_all(writing, chunk)
        return len(chunk)


def sync_file(path: Path) -> None:
    """Waits until the file's content is on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Waits until the folder's own entries are on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock file `path`, waiting for whoever has it. The kernel drops it when the process dies."""
    with _descriptor(path) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


@contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Holds the lock file `path` when nobody has it; yields whether it does."""
    with _descriptor(path) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            free = False
        else:
            free = True
        yield free


@contextmanager
def _descriptor(path: Path) -> Iterator[int]:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
