"""Loads, unloads and removals that meet: each has one defined answer, and nothing is left half done."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from tunechat.serve.api.lifecycle import Adapters
from tunechat.serve.api.settings import ApiSettings
from tunechat.serve.contract.adapters import AdapterState
from tunechat.serve.contract.errors import Conflict, InvalidAdapter, ModelNotFound, TunechatError
from tunechat.serve.text import ModelText
from tunechat.tests.serve.api.adapter_files import write_adapter
from tunechat.tests.serve.api.harness import MODEL, ScriptedEngine, base_manifest


@pytest.fixture
def engine(text: ModelText, entry: Path) -> ScriptedEngine:
    return ScriptedEngine(text=text, entry=entry, state="ready")


async def opened(engine: ScriptedEngine, root: Path, **base: Any) -> Adapters:
    adapters = Adapters(engine, ApiSettings(model=MODEL, adapter_store=root), lambda identity: None)
    await adapters.open(base_manifest(**base))
    return adapters


@pytest.fixture
async def adapters(engine: ScriptedEngine, tmp_path: Path) -> Adapters:
    return await opened(engine, tmp_path / "store")


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return [write_adapter(tmp_path / f"adapter{seed}", seed) for seed in range(4)]


def current(adapters: Adapters, name: str = "a") -> str | None:
    return next((one.ref.id for one in adapters.roster.all() if one.ref.name == name and one.is_current), None)


def stored(adapters: Adapters) -> dict[str, tuple[int | None, list[int]]]:
    return {one.name: (one.current, [version.number for version in one.versions]) for one in adapters.store.all()}


async def test_of_two_loads_of_one_name_one_wins(
    adapters: Adapters, engine: ScriptedEngine, folders: list[Path]
) -> None:
    engine.load_gate = asyncio.Event()
    first = asyncio.create_task(adapters.publish("a", folders[0]))
    await engine.until_waiting(1)
    other = asyncio.create_task(adapters.publish("b", folders[0]))
    for change in (
        adapters.publish("a", folders[1]), adapters.load("a"), adapters.rollback("a"), adapters.remove("a"),
        adapters.activate("a@1"), adapters.pin("a", True),
    ):  # fmt: skip
        with pytest.raises(Conflict):
            await change
    assert current(adapters) is None
    engine.load_gate.set()
    assert (await first).ref.id == "a@1"
    assert (await other).ref.id == "b@1"
    assert stored(adapters) == {"a": (1, [1]), "b": (1, [1])}


@pytest.mark.parametrize("target", ["a", "a@2"])
async def test_an_unload_cancels_the_load_under_way(
    adapters: Adapters, engine: ScriptedEngine, folders: list[Path], target: str
) -> None:
    first = await adapters.publish("a", folders[0])
    engine.load_gate = asyncio.Event()
    loading = asyncio.create_task(adapters.publish("a", folders[1]))
    await engine.until_waiting(1)
    adapters.unload(target)
    engine.load_gate.set()
    with pytest.raises(Conflict, match="unloaded while"):
        await loading
    assert stored(adapters) == {"a": (1, [1])}
    assert set(engine.adapters) == ({first.digest} if target == "a@2" else set())
    assert current(adapters) == ("a@1" if target == "a@2" else None)


async def test_an_unload_cancels_a_load_that_is_still_being_stored(
    adapters: Adapters, engine: ScriptedEngine, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = adapters.store.publish
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(*args: Any, **options: Any) -> Any:
        manifest = publish(*args, **options)
        loop.call_soon_threadsafe(reached.set)
        asyncio.run_coroutine_threadsafe(unloaded.wait(), loop).result(10)
        return manifest

    unloaded = asyncio.Event()
    monkeypatch.setattr(adapters.store, "publish", slow)
    loading = asyncio.create_task(adapters.publish("a", folders[0]))
    await reached.wait()
    assert adapters.unload("a") == ()
    unloaded.set()
    with pytest.raises(Conflict, match="unloaded while"):
        await loading
    assert stored(adapters) == {}
    assert engine.adapters == {}
    with pytest.raises(ModelNotFound):
        adapters.unload("a")


async def test_a_load_that_is_abandoned_ends(adapters: Adapters, engine: ScriptedEngine, folders: list[Path]) -> None:
    engine.load_gate = asyncio.Event()
    loading = asyncio.create_task(adapters.publish("a", folders[0]))
    await engine.until_waiting(1)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    assert (stored(adapters), engine.adapters, adapters.roster.all()) == ({}, {}, ())
    engine.load_gate = None
    assert (await adapters.publish("a", folders[0])).ref.id == "a@2"


async def test_an_unloaded_version_that_is_used_comes_back(
    adapters: Adapters, engine: ScriptedEngine, folders: list[Path]
) -> None:
    await adapters.publish("a", folders[0])
    ref = adapters.roster.acquire("a")
    assert adapters.unload("a") == ("a@1",)
    await adapters.load("a")
    assert current(adapters) == "a@1"
    adapters.roster.release(ref)
    assert engine.removed == []
    assert adapters.roster.manifest(ref).ref == ref


async def test_thousands_of_stored_versions_are_served_at_once(engine: ScriptedEngine, tmp_path: Path) -> None:
    seed = await opened(engine, tmp_path / "store")
    manifest = await seed.publish("a", write_adapter(tmp_path / "x"))
    body = (seed.store.folder(manifest) / "manifest.json").read_text()
    for index in range(1500):
        folder = tmp_path / "store" / f"n{index}" / "1"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(body.replace('"name": "a"', f'"name": "n{index}"'))
    (tmp_path / "store" / "n7" / "1" / "manifest.json").write_text("{")
    (tmp_path / "store" / "n8" / "alias.json").write_text("[]")
    began = asyncio.get_running_loop().time()
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            before = asyncio.get_running_loop().time()
            await asyncio.sleep(0)
            longest = max(longest, asyncio.get_running_loop().time() - before)

    watcher = asyncio.create_task(watch())
    adapters = await opened(engine, tmp_path / "store")
    watcher.cancel()
    assert asyncio.get_running_loop().time() - began < 30
    assert longest < 2, "the event loop stood still"
    assert len(adapters.roster.all()) == 1500
    assert adapters.roster.acquire("n8@1").id == "n8@1"
    with pytest.raises(ModelNotFound):
        adapters.roster.acquire("n7@1")
    assert engine.loads == [manifest.digest]


async def test_versions_of_another_base_are_kept_and_not_served(
    engine: ScriptedEngine, tmp_path: Path, folders: list[Path]
) -> None:
    adapters = await opened(engine, tmp_path / "store")
    (folders[0] / "manifest.json").write_text('{"source_fingerprint": "' + "f" * 64 + '"}')
    await adapters.publish("a", folders[0])
    await adapters.publish("b", folders[1])
    other = await opened(engine, tmp_path / "store", source_fingerprint="0" * 64)
    assert other.problems["a@1"].code == "base_model_mismatch"
    with pytest.raises(ModelNotFound):
        other.roster.acquire("a")
    assert other.roster.acquire("b").id == "b@1"
    with pytest.raises(InvalidAdapter):
        await other.load("a")


async def test_random_changes_at_once_leave_store_engine_and_registry_in_step(
    engine: ScriptedEngine, tmp_path: Path, folders: list[Path]
) -> None:
    """R57, R62: loads, unloads, moves, removals and requests in every order; each ends, and all agree in the end."""
    chance = random.Random(5)
    adapters = await opened(engine, tmp_path / "store")

    async def request(name: str) -> None:
        ref = adapters.roster.acquire(name)
        for _ in range(chance.randrange(4)):
            assert ref.digest in engine.adapters
            await asyncio.sleep(chance.random() / 200)
        adapters.roster.release(ref)

    async def load(name: str, folder: Path) -> None:
        engine.load_fault = InvalidAdapter("bad") if chance.random() < 0.2 else None
        await adapters.publish(name, folder)

    async def unload(name: str) -> None:
        adapters.unload(name)

    async def one() -> None:
        name = chance.choice("ab")
        versioned = f"{name}@{chance.randrange(1, 4)}"
        change = chance.choice(
            [
                lambda: request(name), lambda: request(versioned), lambda: load(name, chance.choice(folders)),
                lambda: load(name, chance.choice(folders)), lambda: unload(name), lambda: unload(versioned),
                lambda: adapters.load(name), lambda: adapters.rollback(name), lambda: adapters.activate(versioned),
                lambda: adapters.remove(versioned), lambda: adapters.remove(name),
            ]
        )  # fmt: skip
        try:
            await asyncio.wait_for(change(), 20)
        except TunechatError as error:
            assert error.http_status < 500, error

    for _ in range(30):
        await asyncio.gather(*(one() for _ in range(8)))
        served = adapters.roster.all()
        assert {entry.state for entry in served} <= {AdapterState.LOADED}
        assert all(entry.requests == 0 for entry in served)
        assert {entry.ref.digest for entry in served} == set(engine.adapters)
        on_disk = stored(adapters)
        for entry in served:
            number, numbers = on_disk[entry.ref.name]
            assert entry.ref.number in numbers
            assert not entry.is_current or entry.ref.number == number
            assert (engine.adapters[entry.ref.digest] / "manifest.json").is_file()
