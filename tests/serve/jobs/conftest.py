"""A database of jobs and what works on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tunechat.serve.jobs.database import Database
from tunechat.serve.jobs.files import FileStore
from tunechat.serve.jobs.queue import JobQueue
from tunechat.serve.jobs.store import JobStore


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "jobs.db")
    yield database
    database.close()


@pytest.fixture
def store(base: Database) -> JobStore:
    return JobStore(base)


@pytest.fixture
def queue(base: Database) -> JobQueue:
    return JobQueue(base)


@pytest.fixture
def files(base: Database, tmp_path: Path) -> FileStore:
    return FileStore(base, tmp_path / "files")
