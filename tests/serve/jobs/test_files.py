"""Uploaded files: whole or not there, their owner's alone, bounded, and held by the jobs that need them."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from tunechat.serve.contract.errors import Conflict, InvalidRequest, NotFound, Overloaded, PayloadTooLarge
from tunechat.serve.jobs.database import Database, StoreFull
from tunechat.serve.jobs.files import FileStore, StoredFile
from tunechat.serve.jobs.job import NewJob
from tunechat.serve.jobs.queue import JobQueue
from tunechat.serve.jobs.store import JobStore


async def chunks(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def add(
    files: FileStore, *parts: bytes, tenant: str = "t", name: str = "a.jsonl", purpose: str = "fine-tune"
) -> StoredFile:
    return await files.add(tenant, name, purpose, chunks(parts))


def on_disk(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "files").glob("*"))


@pytest.mark.parametrize(
    "parts", [[b"{}"], [b"a", b"", b"b\n"], [b"x" * 700_000] * 5, [b"\xef\xbb\xbf\x00\r\n"]], ids=len
)
async def test_a_file_is_read_as_it_was_sent(files: FileStore, parts: list[bytes]) -> None:
    whole = b"".join(parts)
    stored = await add(files, *parts)
    assert (stored.size, stored.digest) == (len(whole), hashlib.sha256(whole).hexdigest())
    assert files.read("t", stored.id) == stored
    with files.content("t", stored.id) as content:
        assert content.read() == whole
    assert stat.S_IMODE(stored.path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.JSONL", ".jsonl"), ("../../x", ""), ("/etc/passwd.csv", ".csv"), ("ü ü.tar.gz", ".gz"), ("x./../y", "")],
)
async def test_a_name_is_shown_and_never_a_path(files: FileStore, tmp_path: Path, name: str, suffix: str) -> None:
    stored = await add(files, b"x", name=name)
    assert stored.name == name
    assert stored.path == tmp_path / "files" / f"{stored.id}{suffix}"
    assert on_disk(tmp_path) == [stored.path.name]


@pytest.mark.parametrize("name", ["", "a\nb", "a\0", "x" * 256, "\ud800"])
async def test_what_is_no_name_is_refused(files: FileStore, tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest):
        await add(files, b"x", name=name)
    assert on_disk(tmp_path) == []


async def test_other_purposes_and_empty_files_are_refused(files: FileStore, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="purpose"):
        await add(files, b"x", purpose="vision")
    with pytest.raises(InvalidRequest, match="empty"):
        await add(files, b"")
    assert on_disk(tmp_path) == []
    assert files.page("t") == []


async def test_sizes_and_numbers_are_bounded(base: Database, tmp_path: Path) -> None:
    files = FileStore(base, tmp_path / "files", most_bytes=3 << 20, most_total=4 << 20, most=3)
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1 << 20
            yield b"x" * (1 << 20)

    with pytest.raises(PayloadTooLarge):
        await files.add("t", "a", "fine-tune", endless())
    assert taken == 4 << 20, "no more is taken than shows that it is too much"
    assert on_disk(tmp_path) == []
    await add(files, b"x" * (3 << 20))
    with pytest.raises(PayloadTooLarge):
        await add(files, b"x" * (2 << 20))
    await add(files, b"x" * (2 << 20), tenant="other")
    await add(files, b"x")
    await add(files, b"x")
    with pytest.raises(Overloaded):
        await add(files, b"x")


async def test_files_that_arrive_at_once_do_not_pass_the_bound_together(base: Database, tmp_path: Path) -> None:
    files = FileStore(base, tmp_path / "files", most_total=10)
    results = await asyncio.gather(*(add(files, b"123456") for _ in range(3)), return_exceptions=True)
    assert sum(isinstance(result, StoredFile) for result in results) == 1
    assert len(on_disk(tmp_path)) == 1


@pytest.mark.parametrize("how", ["error", "cancelled"])
async def test_an_upload_that_is_cut_off_leaves_nothing(files: FileStore, tmp_path: Path, how: str) -> None:
    async def cut() -> AsyncIterator[bytes]:
        yield b"x" * (2 << 20)
        assert on_disk(tmp_path), "it is written as it arrives"
        if how == "error":
            raise ConnectionResetError
        await asyncio.Event().wait()

    upload = asyncio.create_task(files.add("t", "a", "fine-tune", cut()))
    if how == "cancelled":
        await asyncio.sleep(0.1)
        upload.cancel()
    with pytest.raises(ConnectionResetError if how == "error" else asyncio.CancelledError):
        await upload
    assert on_disk(tmp_path) == []
    assert files.page("t") == []


async def test_a_full_disk_is_told_and_harms_nothing(
    files: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = await add(files, b"kept")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StoreFull) as caught:
            await add(files, b"more")
    assert caught.value.http_status == 507
    assert files.page("t") == [kept]
    assert on_disk(tmp_path) == [kept.path.name]
    await add(files, b"more")


async def test_others_see_and_delete_nothing(files: FileStore) -> None:
    stored = await add(files, b"x")
    for view in (files.read, files.content, files.delete):
        with pytest.raises(NotFound):
            view("other", stored.id)
    with pytest.raises(NotFound):
        files.page("other", after=stored.id)
    assert files.page("other") == []
    assert files.read("t", stored.id) == stored


async def test_pages_follow_one_another_in_either_order(files: FileStore) -> None:
    ids = [(await add(files, b"x", purpose=purpose)).id for purpose in ("fine-tune", "fine-tune-results") * 2]
    assert [file.id for file in files.page("t")] == ids[::-1]
    assert [file.id for file in files.page("t", after=ids[2], limit=1)] == [ids[1]]
    assert [file.id for file in files.page("t", after=ids[1], oldest_first=True)] == ids[2:]
    assert [file.id for file in files.page("t", purpose="fine-tune")] == [ids[2], ids[0]]


async def test_a_file_is_held_while_a_job_needs_it(files: FileStore, store: JobStore, queue: JobQueue) -> None:
    training, validation = await add(files, b"x"), await add(files, b"y")
    new = NewJob(tenant="t", model="m", recipe={}, training_file=training.id, validation_file=validation.id)
    id_ = store.create(new).id
    queue.claim()
    for file in (training, validation):
        with pytest.raises(Conflict, match=id_):
            files.delete("t", file.id)
        assert file.path.exists()
    store.cancel("t", id_)
    for file in (training, validation):
        files.delete("t", file.id)
        assert not file.path.exists()
    with pytest.raises(NotFound):
        files.read("t", training.id)
    with pytest.raises(NotFound):
        store.create(new)


async def test_results_are_nothing_to_learn_from(files: FileStore, store: JobStore) -> None:
    file = await add(files, b"x", purpose="fine-tune-results")
    with pytest.raises(InvalidRequest, match="fine-tune"):
        store.create(NewJob(tenant="t", model="m", recipe={}, training_file=file.id))


async def test_only_what_a_death_left_long_ago_is_swept(files: FileStore, tmp_path: Path) -> None:
    kept = await add(files, b"x")
    for name in ("file-0.jsonl", ".tmp-file-1", ".tmp-file-2", "notes"):
        (tmp_path / "files" / name).touch()
    long_ago = time.time() - 10 * 86_400
    for name in ("file-0.jsonl", ".tmp-file-1", "notes", kept.path.name):
        os.utime(tmp_path / "files" / name, (long_ago, long_ago))
    files.sweep()
    assert on_disk(tmp_path) == sorted([".tmp-file-2", "notes", kept.path.name])
