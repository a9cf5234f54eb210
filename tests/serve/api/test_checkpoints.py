"""Checkpoints and labelled versions under traffic: stored once, served without being read, the oldest gone first."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunechat.serve.adapters.staging import Intake
from tunechat.serve.api.lifecycle import Adapters
from tunechat.serve.contract.adapters import AdapterOrigin
from tunechat.serve.contract.errors import InvalidAdapter, InvalidRequest, NameTaken, Unavailable
from tunechat.serve.text import ModelText
from tunechat.tests.serve.api.adapter_files import write_adapter
from tunechat.tests.serve.api.harness import MODEL, ScriptedEngine, base_manifest
from tunechat.tests.serve.api.test_lifecycle import current, opened, stored

JOB = "ftjob-0123456789abcdef01234567"
STEPS = "a.ckpt-01234567"


@pytest.fixture
def engine(text: ModelText, entry: Path) -> ScriptedEngine:
    return ScriptedEngine(text=text, entry=entry, state="ready")


@pytest.fixture
async def adapters(engine: ScriptedEngine, tmp_path: Path) -> Adapters:
    return await opened(engine, tmp_path / "store")


async def add(adapters: Adapters, folder: Path, step: int, keep: int = 10) -> str:
    made = write_adapter(folder / f"step{step}", step)
    return (await adapters.add_checkpoint(STEPS, made, owner="o", label=f"step-{step}", keep=keep)).ref.id


def step(number: int) -> str:
    return f"ft:{MODEL}:a:01234567:ckpt-step-{number}"


async def test_a_checkpoint_is_served_and_not_read(adapters: Adapters, engine: ScriptedEngine, tmp_path: Path) -> None:
    assert await add(adapters, tmp_path, 10) == f"{STEPS}@1"
    assert await add(adapters, tmp_path, 20) == f"{STEPS}@2"
    view = adapters.view(lambda owner: owner == "o")
    assert engine.loads == [] and len(engine.adapters) == 2
    assert [view.acquire(name).number for name in (step(10), step(20), STEPS)] == [1, 2, 2]
    assert view.served() == [] and view.tuned() == []


async def test_the_newest_stay_and_those_that_requests_use(adapters: Adapters, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        await add(adapters, tmp_path, number)
    view = adapters.view(lambda owner: True)
    used = view.acquire(step(1))
    await adapters.pin(f"{STEPS}@2", True)
    for number in (4, 5):
        await add(adapters, tmp_path, number, keep=2)
    assert stored(adapters) == {STEPS: (5, [1, 2, 4, 5])}
    assert [number for number in range(1, 6) if view.knows(step(number))] == [1, 2, 4, 5]
    view.release(used)
    await add(adapters, tmp_path, 6, keep=2)
    assert stored(adapters) == {STEPS: (6, [2, 5, 6])}


async def test_a_step_that_is_published_twice_is_one_version(adapters: Adapters, tmp_path: Path) -> None:
    first = await add(adapters, tmp_path, 10)
    folder = write_adapter(tmp_path / "other", 99)
    again = await adapters.add_checkpoint(STEPS, folder, owner="o", label="step-10")
    assert again.ref.id == first
    assert stored(adapters) == {STEPS: (1, [1])}


async def test_a_refused_checkpoint_leaves_the_others(adapters: Adapters, tmp_path: Path) -> None:
    await add(adapters, tmp_path, 10)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidAdapter):
        await adapters.add_checkpoint(STEPS, tmp_path / "empty", owner="o", label="step-20")
    with pytest.raises(NameTaken):
        await adapters.add_checkpoint(STEPS, write_adapter(tmp_path / "x"), owner="p", label="step-20")
    assert stored(adapters) == {STEPS: (1, [1])}
    assert adapters.view(lambda owner: True).knows(step(10))


async def test_who_died_after_storing_publishes_the_same_version_again(
    adapters: Adapters, engine: ScriptedEngine, tmp_path: Path
) -> None:
    """The server was killed between storing the version and writing down that it had."""
    folder, origin = write_adapter(tmp_path / "1", 1), AdapterOrigin(base="b", job=JOB, metrics={"loss": 0.5})
    adapters.store.publish("a", folder, Intake(base_manifest(), origin=origin), activate=False, owner="o", label=JOB)
    again = await opened(engine, adapters.store.root)
    assert current(again) is None
    other = write_adapter(tmp_path / "2", 2)
    manifest = await again.publish("a", other, owner="o", label=JOB, origin=origin)
    assert (manifest.ref.id, manifest.job, manifest.metrics) == ("a@1", JOB, {"loss": 0.5})
    assert (stored(again), current(again)) == ({"a": (1, [1])}, "a@1")
    assert again.view(lambda owner: owner == "o").acquire(f"ft:{MODEL}:a:01234567").id == "a@1"


async def test_a_publication_that_the_engine_refuses_leaves_the_name_free(
    adapters: Adapters, engine: ScriptedEngine, tmp_path: Path
) -> None:
    engine.load_fault = Unavailable("full")
    with pytest.raises(Unavailable):
        await adapters.publish("a", write_adapter(tmp_path / "1"), owner="o", label=JOB)
    assert stored(adapters) == {}
    assert adapters.check_free("a", "p") == "p"
    engine.load_fault = None
    assert (await adapters.publish("a", write_adapter(tmp_path / "2"), owner="p")).ref.id == "a@2"
    assert adapters.store.of("a").labels == {}
    with pytest.raises(NameTaken, match="choose another"):
        adapters.check_free("a", "o")


async def test_the_bases_own_name_is_not_free(adapters: Adapters) -> None:
    for name in (MODEL, MODEL.upper(), "a b", ""):
        with pytest.raises(InvalidRequest):
            adapters.check_free(name, "o")
