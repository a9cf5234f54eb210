"""Files below one folder, and no others: every part of a path is opened by itself, and no link is followed.

What is opened is what was checked, whatever happens to names meanwhile, because each step starts from the open folder
of the step before (openat(2) with O_NOFOLLOW). Names that begin with a dot are hidden: they hold keys and settings.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .errors import ToolFailed

MAX_PATH = 1024  # characters
MAX_PARTS = 32
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe must not block


@dataclass(frozen=True, slots=True)
class Found:
    """A file or folder below the root. `path` has `/` between parts; `size` is in bytes, `changed` in nanoseconds."""

    path: str
    is_folder: bool
    size: int
    changed: int


def clean_path(text: str) -> str:
    """The one way to write a path below a root: `a/b`, and "" for the root itself.

    Raises ValueError for paths that lead out, are absolute, hidden or too long.
    """
    if len(text) > MAX_PATH or "\0" in text:
        raise ValueError(f"a path has at most {MAX_PATH} characters, none of them NUL")
    parts = [part for part in text.split("/") if part not in {"", "."}]
    if text.startswith("/") or (parts and parts[0].startswith("~")):
        raise ValueError("a path is relative to the folder of the tool, such as notes/plan.md")
    if ".." in parts:
        raise ValueError("a path must not contain '..'")
    if any(part.startswith(".") for part in parts):
        raise ValueError("hidden files are not shown")
    if len(parts) > MAX_PARTS:
        raise ValueError(f"a path has at most {MAX_PARTS} parts")
    return "/".join(parts)


class Root:
    """One folder, which may itself be reached through links: it is the user's own choice."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def opened_folder(self, path: str) -> Iterator[int]:
        """A descriptor of the folder `path`. Raises ToolFailed when there is none, or a link leads to it."""
        try:
            current = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ToolFailed("the folder of this tool cannot be opened") from error
        try:
            for part in _parts(path):
                current = _step(current, part, path)
            yield current
        finally:
            os.close(current)

    @contextmanager
    def opened_file(self, path: str) -> Iterator[tuple[int, os.stat_result]]:
        """A descriptor of the regular file `path`, and what it is. Raises ToolFailed for anything else."""
        parent, _, name = "/".join(_parts(path)).rpartition("/")
        if not name:
            raise ToolFailed("a path of a file is needed")
        with self.opened_folder(parent) as folder:
            try:
                # What is no regular file is not even opened: opening a device can do things.
                if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                    raise ToolFailed(f"{path!r} is no ordinary file")
                descriptor = os.open(name, _FILE, dir_fd=folder)
            except OSError as error:
                raise _missing(path, error) from error
        try:
            told = os.fstat(descriptor)
            if not stat.S_ISREG(told.st_mode):
                raise ToolFailed(f"{path!r} is no ordinary file")
            yield descriptor, told
        finally:
            os.close(descriptor)

    def read(self, path: str, limit: int) -> bytes:
        """The first `limit` bytes of a file."""
        with self.opened_file(path) as (descriptor, _):
            kept = bytearray()
            while len(kept) < limit and (chunk := os.read(descriptor, min(1 << 20, limit - len(kept)))):
                kept += chunk
            return bytes(kept)

    def listed(self, path: str, most: int) -> list[Found]:
        """Up to `most` files and folders in the folder `path`, by name; links and hidden ones are left out."""
        found: list[Found] = []
        with self.opened_folder(path) as folder, os.scandir(folder) as entries:
            for seen, entry in enumerate(entries):
                if seen >= most * 4 or len(found) >= most:
                    break
                if entry.name.startswith(".") or not _readable(entry.name):
                    continue
                try:
                    told = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue  # gone since it was listed
                if stat.S_ISREG(told.st_mode) or stat.S_ISDIR(told.st_mode):
                    below = f"{path}/{entry.name}" if path else entry.name
                    found.append(Found(below, stat.S_ISDIR(told.st_mode), told.st_size, told.st_mtime_ns))
        return sorted(found, key=_path_of)

    def walked(self, path: str = "", *, most: int = 20_000) -> Iterator[Found]:
        """Every file below `path`, folder by folder in order of names; stops after `most` files and folders."""
        waiting = [path]
        seen = 0
        while waiting and seen < most:
            try:
                entries = self.listed(waiting.pop(), most)
            except ToolFailed:
                continue  # the folder is gone, or may not be read
            seen += len(entries)
            yield from (entry for entry in entries if not entry.is_folder)
            waiting += [entry.path for entry in reversed(entries) if entry.is_folder and _depth(entry) < MAX_PARTS]


def _parts(path: str) -> list[str]:
    try:
        clean = clean_path(path)
    except ValueError as error:
        raise ToolFailed(str(error), param="path") from error
    return clean.split("/") if clean else []


def _step(current: int, part: str, path: str) -> int:
    try:
        deeper = os.open(part, _FOLDER, dir_fd=current)
    except OSError as error:
        raise _missing(path, error) from error
    os.close(current)
    return deeper


def _missing(path: str, error: OSError) -> ToolFailed:
    if isinstance(error, FileNotFoundError):
        return ToolFailed(f"there is no {path!r}", param="path")
    if isinstance(error, PermissionError):
        return ToolFailed(f"{path!r} may not be read", param="path")
    return ToolFailed(f"{path!r} is no file or folder that can be opened; links are not followed", param="path")


def _readable(name: str) -> bool:
    return name.isprintable()


def _depth(entry: Found) -> int:
    return entry.path.count("/") + 1


def _path_of(entry: Found) -> str:
    return entry.path
