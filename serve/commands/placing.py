"""Files and folders that a command writes where the user says: there whole or not at all, and never over others'."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..contract.errors import ConfigError, Conflict


@contextmanager
def placed_folder(target: Path, mark: str, *, force: bool) -> Iterator[Path]:
    """An empty folder beside `target`, renamed to it when the block ends without an error.

    `force` lets it replace a folder that holds the file `mark`, which is what this command writes. Raises Conflict for
    anything else that is there.
    """
    _check_parent(target)
    if target.is_dir() and any(target.iterdir()):
        if not force:
            raise Conflict(f"{target} is there already; add --force to replace it")
        if not (target / mark).is_file():
            raise Conflict(f"{target} holds other things (no {mark}); choose another place")
    elif target.exists() and not target.is_dir():
        raise Conflict(f"{target} is a file; choose another place")
    staged, old = _beside(target), _beside(target)
    staged.mkdir()
    try:
        yield staged
        _sync(staged)
        if force and target.exists():
            target.rename(old)
        try:
            staged.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
        _sync(target.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def placed_file(target: Path, *, force: bool) -> Iterator[Path]:
    """The name of a new file beside `target`, which gets its name when the block ends without an error.

    Raises Conflict when `target` is there and `force` is not set, and when it is a folder.
    """
    _check_parent(target)
    if target.is_dir():
        raise Conflict(f"{target} is a folder; choose another place")
    staged = _beside(target)
    try:
        if target.exists() and not force:
            raise FileExistsError
        yield staged
        if force:
            os.replace(staged, target)
        else:
            os.link(staged, target)  # unlike a rename, fails when somebody was quicker
        _sync(target.parent)
    except FileExistsError as error:
        raise Conflict(f"{target} is there already; add --force to replace it") from error
    finally:
        staged.unlink(missing_ok=True)


def write_synced(path: Path, content: bytes) -> None:
    """Writes a new file and waits until it is on disk."""
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _check_parent(target: Path) -> None:
    if not target.parent.is_dir():
        raise ConfigError(f"there is no folder {target.parent}; make it first")


def _beside(target: Path) -> Path:
    return target.with_name(f".tmp-{target.name}-{uuid.uuid4().hex[:8]}")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
