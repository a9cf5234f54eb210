"""The watched folder: dropped in, changed, spoilt, mended, removed."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tunechat.serve.adapters.quarantine import Quarantine
from tunechat.serve.adapters.staging import Intake
from tunechat.serve.adapters.store import AdapterStore
from tunechat.serve.adapters.watch import Event, FolderWatch, Imported, Refused, Removed
from tunechat.serve.contract.base import BaseManifest

from .conftest import CONFIG, WEIGHTS, edit_config


class Watched:
    """A watch that runs beside the test, on a folder that the test changes."""

    def __init__(self, tmp_path: Path, base: BaseManifest) -> None:
        self.root = tmp_path / "dropped"
        self.store = AdapterStore(tmp_path / "store")
        self.quarantine = Quarantine(self.store.root)
        self.watch = FolderWatch(self.root, self.store, self.quarantine, Intake(base), settle=0.1)
        self.stop = asyncio.Event()
        self.happened: asyncio.Queue[Event] = asyncio.Queue()
        self.task = asyncio.create_task(self.run())

    async def run(self) -> None:
        async for event in self.watch.events(self.stop):
            self.happened.put_nowait(event)

    async def next(self) -> Event:
        return await asyncio.wait_for(self.happened.get(), 20)

    async def quiet(self) -> bool:
        await asyncio.sleep(0.5)
        return self.happened.empty() and not self.task.done()


@pytest_asyncio.fixture
async def watched(tmp_path: Path, base: BaseManifest) -> AsyncIterator[Watched]:
    watched = Watched(tmp_path, base)
    yield watched
    watched.stop.set()
    await asyncio.wait_for(watched.task, 20)


async def drop(watched: Watched, plain: Path, name: str) -> Event:
    shutil.copytree(plain, watched.root / name)
    return await watched.next()


async def test_dropped_changed_removed(watched: Watched, plain: Path) -> None:
    event = await drop(watched, plain, "support")
    assert isinstance(event, Imported) and event.version.ref.id == "support@1"
    edit_config(watched.root / "support", lora_alpha=3)
    event = await watched.next()
    assert isinstance(event, Imported) and (event.version.number, event.version.alpha) == (2, 3.0)
    shutil.rmtree(watched.root / "support")
    assert await watched.next() == Removed("support")
    assert watched.store.show("support").number == 2
    assert await watched.quiet()


async def test_spoilt_and_mended(watched: Watched, plain: Path, tmp_path: Path) -> None:
    assert isinstance(await drop(watched, plain, "support"), Imported)
    edit_config(watched.root / "support", r=5)
    event = await watched.next()
    assert isinstance(event, Refused) and event.name == "support" and "rank 5" in event.held.error.message
    assert watched.quarantine.all() == (event.held,) == Quarantine(watched.store.root).all()
    assert watched.store.show("support").number == 1
    edit_config(watched.root / "support", r=4)
    event = await watched.next()
    assert isinstance(event, Imported) and event.version.number == 1
    assert watched.quarantine.all() == () == Quarantine(watched.store.root).all()


async def test_what_is_there_at_first(tmp_path: Path, base: BaseManifest, plain: Path) -> None:
    for name in ("b", "a"):
        shutil.copytree(plain, tmp_path / "dropped" / name)
    watched = Watched(tmp_path, base)
    events = [await watched.next(), await watched.next()]
    assert [(type(event), event.name) for event in events] == [(Imported, "a"), (Imported, "b")]
    watched.stop.set()
    await watched.task


async def test_a_folder_that_grows_is_left_alone(watched: Watched, plain: Path) -> None:
    """Written in pieces, with pauses shorter than the time to settle: read once, whole."""
    folder = watched.root / "support"
    folder.mkdir(parents=True)
    shutil.copy(plain / CONFIG, folder)
    data = (plain / WEIGHTS).read_bytes()
    with (folder / WEIGHTS).open("wb") as file:
        for at in range(0, len(data), len(data) // 8 + 1):
            file.write(data[at : at + len(data) // 8 + 1])
            file.flush()
            await asyncio.sleep(0.04)
    event = await watched.next()
    while isinstance(event, Refused):  # a machine that stalls may see it half written
        event = await watched.next()
    assert isinstance(event, Imported) and event.version.number == 1
    assert await watched.quiet()


@pytest.mark.parametrize("name", ["no name", "-x", "é", "a@1"])
async def test_bad_names(watched: Watched, plain: Path, name: str) -> None:
    event = await drop(watched, plain, name)
    assert isinstance(event, Refused) and event.held.error.code == "invalid_request"
    shutil.rmtree(watched.root / name)
    assert await watched.next() == Removed(name)
    assert watched.quarantine.all() == ()


async def test_a_name_that_is_no_text(watched: Watched, plain: Path) -> None:
    event = await drop(watched, plain, os.fsdecode(b"\xff"))
    assert isinstance(event, Refused) and event.name == "\\udcff"
    assert isinstance(await drop(watched, plain, "support"), Imported)


async def test_a_folder_that_cannot_be_stored(watched: Watched, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    await watched.quiet()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        event = await drop(watched, plain, "support")
    assert isinstance(event, Refused) and event.held.error.code == "store_failed"
    assert watched.quarantine.all() == (event.held,)
    os.utime(watched.root / "support" / CONFIG)
    assert isinstance(await watched.next(), Imported)


async def test_the_watched_folder_itself_goes(watched: Watched, plain: Path) -> None:
    await drop(watched, plain, "support")
    watched.root.rename(watched.root.with_name("away"))
    assert await watched.next() == Removed("support")


async def test_links_are_refused(watched: Watched, plain: Path) -> None:
    await watched.quiet()
    (watched.root / "linked").symlink_to(plain)
    event = await watched.next()
    assert isinstance(event, Refused) and "link" in event.held.error.message


async def test_what_is_passed_over(watched: Watched, plain: Path) -> None:
    await watched.quiet()
    shutil.copytree(plain, watched.root / ".staged")
    (watched.root / "empty").mkdir()
    (watched.root / "file.txt").write_text("x")
    assert await watched.quiet()
    (watched.root / ".staged").rename(watched.root / "support")
    assert isinstance(await watched.next(), Imported)


async def test_other_files_do_not_count(watched: Watched, plain: Path) -> None:
    await drop(watched, plain, "support")
    (watched.root / "support" / "README.md").write_text("words")
    os.utime(watched.root / "support")
    assert await watched.quiet()


async def test_gone_while_nobody_watched(tmp_path: Path, base: BaseManifest, plain: Path) -> None:
    first = Watched(tmp_path, base)
    event = await drop(first, plain, "bad name")
    assert isinstance(event, Refused)
    first.stop.set()
    await first.task
    shutil.rmtree(first.root / "bad name")
    second = Watched(tmp_path, base)
    assert await second.next() == Removed("bad name")
    assert Quarantine(second.store.root).all() == ()
    second.stop.set()
    await second.task


def test_a_damaged_quarantine_file_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / ".quarantine").mkdir()
    (tmp_path / ".quarantine" / "x.json").write_text("{")
    assert Quarantine(tmp_path).all() == ()


async def test_a_name_that_a_key_owns_is_refused_once(watched: Watched, plain: Path, base: BaseManifest) -> None:
    """It is no conflict that passes: the folder is not tried again and again."""
    watched.store.publish("support", plain, Intake(base), owner="a")
    event = await drop(watched, plain, "support")
    assert isinstance(event, Refused) and event.held.error.code == "name_taken"
    assert await watched.quiet()
