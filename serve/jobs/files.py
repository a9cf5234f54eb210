"""Uploaded files: streamed to disk, whole or not there, each seen by its owner alone.

A file appears by one rename under an id that was made here, never under a name that a client gave; the row in the
database comes last. What a death leaves between the two is removed after a while.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import time
import unicodedata
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..adapters.durable import TEMPORARY, sync_folder
from ..contract.errors import Conflict, InvalidRequest, NotFound, Overloaded, PayloadTooLarge
from .background import aside
from .database import Database, disk_error
from .job import FINAL, Status

PURPOSES = ("fine-tune", "fine-tune-results")
MOST_AT_ONCE = 10_000
_BLOCK = 1 << 20
_LONGEST_NAME = 255
_STALE_SECONDS = 2 * 86_400  # longer than any upload may take
_COLUMNS = "id, tenant, created, name, purpose, size, digest, place, number"
_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}\Z")
_HOLDING = ", ".join(f"'{status}'" for status in Status if status not in FINAL)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file on disk. `name` is what its owner called it, for display only; `digest` is the SHA-256 of its content.

    `size` is in bytes. `path` ends as the name does, so that readers can tell a table from text.
    """

    id: str
    tenant: str
    created: float
    name: str
    purpose: str
    size: int
    digest: str
    path: Path


class FileStore:
    """The files in `folder`, known to a database.

    A file may have `most_bytes`; a tenant may have `most` files of `most_total` bytes together. All methods raise
    StoreFull when the disk is full and Unavailable when it fails; nothing that was there is harmed.
    """

    def __init__(
        self,
        base: Database,
        folder: Path,
        *,
        most_bytes: int = 512 << 20,
        most_total: int = 8 << 30,
        most: int = 1000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._base = base
        self._folder = folder
        self._most_bytes = most_bytes
        self._most_total = most_total
        self._most = most
        self._clock = clock

    async def add(
        self, tenant: str, name: str, purpose: str | Callable[[], str], content: AsyncIterator[bytes]
    ) -> StoredFile:
        """Takes a file in as it arrives, in blocks of a mebibyte; memory does not grow with it.

        A `purpose` that is known only at the end of `content` is asked for then.

        Raises InvalidRequest for another purpose, a name that is none and an empty file, PayloadTooLarge for more
        than is allowed, Overloaded when the tenant has too many. Whatever `content` raises is passed on.
        """
        if isinstance(purpose, str):
            _check_purpose(purpose)
        check_file_name(name)
        room = await aside(self._room, tenant)
        id_ = f"file-{secrets.token_hex(12)}"
        staged = _Staged(self._folder / f"{TEMPORARY}{id_}", min(room, self._most_bytes))
        try:
            with _told(id_):
                await aside(staged.open)
            block = bytearray()
            async for chunk in content:
                block += chunk
                if len(block) >= _BLOCK:
                    with _told(id_):
                        await aside(staged.write, bytes(block))
                    block.clear()
            purpose = _check_purpose(purpose if isinstance(purpose, str) else purpose())
            with _told(id_):
                return await aside(self._finish, staged, bytes(block), tenant, id_, name, purpose)
        finally:
            await aside(staged.discard)

    def read(self, tenant: str, id_: str) -> StoredFile:
        """Raises NotFound, as `content` and `delete` do."""
        row = self._base.row(f"SELECT {_COLUMNS} FROM files WHERE id = ? AND tenant = ?", (id_, tenant))  # noqa: S608
        if row is None:
            raise NotFound(f"there is no file {ascii(id_)[:80]}", param="file_id")
        return self._file(row)

    def page(
        self,
        tenant: str,
        *,
        purpose: str | None = None,
        after: str | None = None,
        limit: int = MOST_AT_ONCE,
        oldest_first: bool = False,
    ) -> list[StoredFile]:
        """The tenant's files, the newest first: those that follow the file `after`."""
        low, high = -1, 1 << 62
        if after is not None:
            self.read(tenant, after)
            number = self._base.row("SELECT number FROM files WHERE id = ?", (after,))[0]
            low, high = (number, high) if oldest_first else (low, number)
        rows = self._base.rows(
            f"SELECT {_COLUMNS} FROM files WHERE tenant = ? AND number > ? AND number < ? "  # noqa: S608
            f"AND purpose = COALESCE(?, purpose) ORDER BY number {'ASC' if oldest_first else 'DESC'} LIMIT ?",
            (tenant, low, high, purpose, max(1, min(limit, MOST_AT_ONCE + 1))),
        )
        return [self._file(row) for row in rows]

    def content(self, tenant: str, id_: str) -> BinaryIO:
        """The file, open for reading; it can be read to its end even when it is deleted meanwhile."""
        stored = self.read(tenant, id_)
        with _told(id_):
            return stored.path.open("rb")

    def delete(self, tenant: str, id_: str) -> None:
        """Raises Conflict while a job that is not done needs the file."""
        with self._base.writing():
            stored = self.read(tenant, id_)
            holder = self._base.row(
                f"SELECT id, status FROM jobs WHERE status IN ({_HOLDING}) AND ? IN (training_file, validation_file)",  # noqa: S608
                (id_,),
            )
            if holder is not None:
                raise Conflict(f"job {holder[0]}, which is {holder[1]}, needs file {id_}; cancel the job first")
            self._base.execute("DELETE FROM files WHERE id = ?", (id_,))
        with _told(id_):
            stored.path.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Removes what was left behind by uploads and deletions that a death cut off, when it is two days old."""
        with _told("of a dead upload"):
            self._folder.mkdir(parents=True, exist_ok=True)
            known = {row[0] for row in self._base.rows("SELECT place FROM files")}
            for path in self._folder.iterdir():
                with contextlib.suppress(FileNotFoundError):
                    is_ours = path.name.startswith(("file-", f"{TEMPORARY}file-")) and path.name not in known
                    if is_ours and time.time() - path.lstat().st_mtime > _STALE_SECONDS:
                        path.unlink()

    def _room(self, tenant: str) -> int:
        """How many bytes the tenant may still store."""
        count, used = self._base.row("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM files WHERE tenant = ?", (tenant,))
        if count >= self._most:
            raise Overloaded(f"{self._most} files are stored; delete one first", retry_after=60)
        return int(self._most_total - used)

    def _finish(self, staged: _Staged, rest: bytes, tenant: str, id_: str, name: str, purpose: str) -> StoredFile:
        staged.write(rest)
        if staged.size == 0:
            raise InvalidRequest("the file is empty", param="file")
        suffix = _SUFFIX.search(name.lower())
        place = id_ + (suffix[0] if suffix else "")
        staged.reveal(self._folder / place)
        try:
            with self._base.writing():
                # Others of the tenant may have arrived meanwhile.
                if staged.size > self._room(tenant):
                    raise PayloadTooLarge("your files together are too large; delete some first", param="file")
                self._base.execute(
                    "INSERT INTO files VALUES (?, ?, (SELECT COALESCE(MAX(number), 0) + 1 FROM files), "
                    "?, ?, ?, ?, ?, ?)",
                    (id_, tenant, self._clock(), name, purpose, staged.size, staged.digest, place),
                )
        except BaseException:
            (self._folder / place).unlink(missing_ok=True)
            raise
        return self.read(tenant, id_)

    def _file(self, row: Any) -> StoredFile:
        id_, tenant, created, name, purpose, size, digest, place, _ = row
        return StoredFile(id_, tenant, created, name, purpose, size, digest, self._folder / place)


class _Staged:
    """A file that is being written where nobody looks."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._hash = hashlib.sha256()
        self._file: BinaryIO | None = None
        self.size = 0

    def open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(descriptor, "wb", buffering=0)

    def write(self, block: bytes) -> None:
        self.size += len(block)
        if self.size > self._limit:
            raise PayloadTooLarge(f"the file is larger than the {self._limit} bytes that are allowed", param="file")
        self._hash.update(block)
        view = memoryview(block)
        while view and self._file is not None:
            view = view[self._file.write(view) :]

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def reveal(self, path: Path) -> None:
        """Renames the file to `path` when it is on disk."""
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
        os.rename(self._path, path)
        sync_folder(path.parent)

    def discard(self) -> None:
        if self._file is not None:
            self._file.close()
        self._path.unlink(missing_ok=True)


def check_file_name(name: str) -> None:
    """Raises InvalidRequest for what no file is called. Names are shown, and never used as paths."""
    if not name or len(name) > _LONGEST_NAME or any(unicodedata.category(char) in ("Cc", "Cs") for char in name):
        raise InvalidRequest(
            f"the file's name must have 1 to {_LONGEST_NAME} characters and no control characters", param="file"
        )


def _check_purpose(purpose: str) -> str:
    if purpose not in PURPOSES:
        raise InvalidRequest(f"purpose must be one of {', '.join(PURPOSES)}", param="purpose")
    return purpose


@contextlib.contextmanager
def _told(id_: str) -> Iterator[None]:
    """Turns an error of the disk into one of ours."""
    try:
        yield
    except OSError as error:
        raise disk_error(f"file {id_} cannot be stored or read", error) from error
