"""The SQLite file of jobs and files: what was committed survives a kill of the process and a cut of the power."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..contract.errors import TunechatError, Unavailable

VERSION = 2
_WAIT_SECONDS = 10.0
_SCHEMA = """
CREATE TABLE files (
    id TEXT PRIMARY KEY, tenant TEXT NOT NULL, number INTEGER NOT NULL UNIQUE, created REAL NOT NULL,
    name TEXT NOT NULL, purpose TEXT NOT NULL, size INTEGER NOT NULL, digest TEXT NOT NULL, place TEXT NOT NULL
);
CREATE INDEX files_by_tenant ON files (tenant, number);
CREATE TABLE jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    status TEXT NOT NULL CHECK (
        status IN ('validating_files', 'queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')
    ),
    created REAL NOT NULL,
    model TEXT NOT NULL,
    recipe BLOB NOT NULL,
    request BLOB NOT NULL,
    suffix TEXT,
    training_file TEXT,
    validation_file TEXT,
    result_file TEXT,
    attempt INTEGER NOT NULL DEFAULT 0,
    losses INTEGER NOT NULL DEFAULT 0,
    stopping INTEGER NOT NULL DEFAULT 0,
    ended BLOB,
    started REAL,
    finished REAL,
    progress BLOB NOT NULL,
    error BLOB,
    fine_tuned_model TEXT,
    last_event INTEGER NOT NULL DEFAULT 0,
    settled BLOB
);
CREATE INDEX jobs_by_tenant ON jobs (tenant, number);
CREATE INDEX jobs_by_status ON jobs (status, number);
CREATE TABLE events (
    job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    number INTEGER NOT NULL,
    created REAL NOT NULL,
    level TEXT NOT NULL,
    message TEXT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (job, number)
) WITHOUT ROWID;
CREATE TABLE checkpoints (
    job INTEGER NOT NULL REFERENCES jobs ON DELETE CASCADE,
    step INTEGER NOT NULL,
    created REAL NOT NULL,
    folder TEXT NOT NULL,
    adapter TEXT NOT NULL,
    metrics TEXT NOT NULL,
    PRIMARY KEY (job, step)
) WITHOUT ROWID;
"""

# What makes a database of one version one of the next.
_MIGRATIONS = {1: "ALTER TABLE jobs ADD COLUMN settled BLOB"}


class StoreFull(TunechatError):
    """The disk has no room for what was to be written. What was there is as it was."""

    code = "insufficient_storage"
    http_status = 507


class Database:
    """The file, open. Any thread may use it, one at a time; other processes may have it open too."""

    def __init__(self, path: Path) -> None:
        """Opens `path`, or makes it, readable for its owner alone.

        Raises Unavailable when it cannot be opened, or was written by a newer release.
        """
        self._lock = threading.RLock()
        with _told():
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            self._connection = sqlite3.connect(
                path, timeout=_WAIT_SECONDS, isolation_level=None, check_same_thread=False
            )
        try:
            self._prepare(path)
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """All that is written inside is on disk at the end, or nothing of it is after an error.

        Raises StoreFull when there is no room, Unavailable when the file cannot be written.
        """
        with self._lock, _told():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                # Some errors, a full disk among them, have rolled back already.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def execute(self, statement: str, values: Sequence[Any] | dict[str, Any] = ()) -> int:
        """The number of rows that were changed."""
        with self._lock, _told():
            return self._connection.execute(statement, values).rowcount

    def rows(self, statement: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[Any]:
        """All rows, each a tuple."""
        with self._lock, _told():
            return self._connection.execute(statement, values).fetchall()

    def row(self, statement: str, values: Sequence[Any] | dict[str, Any] = ()) -> Any:
        """The first row, None when there is none."""
        with self._lock, _told():
            return self._connection.execute(statement, values).fetchone()

    def _prepare(self, path: Path) -> None:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "secure_delete = ON"):
            self.rows(f"PRAGMA {pragma}")
        with self.writing():
            version = self.row("PRAGMA user_version")[0]
            if version > VERSION:
                raise Unavailable(
                    f"{path.name} has version {version}, and this release knows {VERSION}; use a newer release",
                    code="store_failed",
                )
            if version == 0:
                for statement in _SCHEMA.split(";"):
                    self.execute(statement)
            else:
                for older in range(version, VERSION):
                    self.execute(_MIGRATIONS[older])
            if version != VERSION:
                self.execute(f"PRAGMA user_version = {VERSION}")


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turns an error of the database or its disk into one of ours."""
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            raise StoreFull("the disk is full; nothing was changed") from error
        raise Unavailable(f"jobs and files cannot be read or written: {error}", code="store_failed") from error
    except OSError as error:
        raise disk_error("jobs and files cannot be read or written", error) from error


def disk_error(what: str, error: OSError) -> TunechatError:
    """`error` as one of ours: StoreFull or Unavailable."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"{what}: the disk is full")
    return Unavailable(f"{what}: {error.strerror or error}", code="store_failed")
