"""The file itself: private, whole after any error, and refused when it is from a later release."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest

from tunechat.serve.contract.errors import Unavailable
from tunechat.serve.jobs.database import Database, StoreFull
from tunechat.serve.jobs.job import NewJob
from tunechat.serve.jobs.store import JobStore


def test_it_is_private_and_synced_fully(base: Database, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "jobs.db").stat().st_mode) == 0o600
    assert base.row("PRAGMA synchronous")[0] == 2
    assert base.row("PRAGMA journal_mode")[0] == "wal"


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    Database(tmp_path / "jobs.db").close()
    other = sqlite3.connect(tmp_path / "jobs.db")
    other.execute("PRAGMA user_version = 99")
    other.close()
    with pytest.raises(Unavailable, match=r"version 99.*use a newer release"):
        Database(tmp_path / "jobs.db")


def test_a_file_of_the_first_version_is_opened_with_what_it_holds(tmp_path: Path) -> None:
    base = Database(tmp_path / "jobs.db")
    made = JobStore(base).create(NewJob(tenant="t", model="m", recipe={"rank": 4}))
    base.execute("ALTER TABLE jobs DROP COLUMN settled")
    base.execute("PRAGMA user_version = 1")
    base.close()
    for _ in range(2):
        base = Database(tmp_path / "jobs.db")
        assert JobStore(base).read("t", made.id) == made
        base.close()


def test_what_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "jobs.db").write_bytes(b"not a database" * 100)
    with pytest.raises(Unavailable, match="not a database"):
        Database(tmp_path / "jobs.db")
    assert (tmp_path / "jobs.db").read_bytes() == b"not a database" * 100


def test_a_full_disk_changes_nothing_and_room_makes_it_work_again(base: Database, store: JobStore) -> None:
    kept = store.create(NewJob(tenant="t", model="m", recipe={}))
    base.row(f"PRAGMA max_page_count = {base.row('PRAGMA page_count')[0]}")
    large = NewJob(tenant="t", model="m", recipe={"x": "y" * 100_000})
    with pytest.raises(StoreFull) as caught:
        store.create(large)
    assert (caught.value.code, caught.value.http_status) == ("insufficient_storage", 507)
    assert store.page("t") == [kept]
    base.row("PRAGMA max_page_count = 100000")
    store.create(large)
    assert base.row("PRAGMA integrity_check")[0] == "ok"
    assert len(store.page("t")) == 2


def test_an_error_inside_rolls_all_back(base: Database, store: JobStore) -> None:
    id_ = store.create(NewJob(tenant="t", model="m", recipe={})).id
    with pytest.raises(KeyError), base.writing():
        base.execute("DELETE FROM jobs")
        raise KeyError
    assert store.read("t", id_).id == id_
