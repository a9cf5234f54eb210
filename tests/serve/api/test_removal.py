"""Removing the current version of a name that has others."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunechat.serve.api.lifecycle import Adapters
from tunechat.serve.api.removal import discard
from tunechat.serve.contract.errors import Conflict, ModelNotFound
from tunechat.serve.text import ModelText
from tunechat.tests.serve.api.adapter_files import write_adapter
from tunechat.tests.serve.api.harness import ScriptedEngine
from tunechat.tests.serve.api.test_lifecycle import current, opened, stored


@pytest.fixture
async def adapters(text: ModelText, entry: Path, tmp_path: Path) -> Adapters:
    """Versions 1 to 3 of `a`, the newest current."""
    made = await opened(ScriptedEngine(text=text, entry=entry, state="ready"), tmp_path / "store")
    for seed in (1, 2, 3):
        await made.publish("a", write_adapter(tmp_path / str(seed), seed))
    return made


async def test_the_name_means_what_it_meant_before(adapters: Adapters) -> None:
    await discard(adapters, "a@3")
    assert (stored(adapters), current(adapters)) == ({"a": (2, [1, 2])}, "a@2")
    await discard(adapters, "a@1")
    assert (stored(adapters), current(adapters)) == ({"a": (2, [2])}, "a@2")
    await discard(adapters, "a@2")
    assert stored(adapters) == {}
    for gone in ("a", "a@2"):
        with pytest.raises(ModelNotFound):
            await discard(adapters, gone)


async def test_a_whole_name(adapters: Adapters) -> None:
    await discard(adapters, "a")
    assert (stored(adapters), adapters.roster.all()) == ({}, ())


async def test_what_is_used_or_pinned_stays_current(adapters: Adapters) -> None:
    ref = adapters.roster.acquire("a")
    with pytest.raises(Conflict, match="in use"):
        await discard(adapters, "a@3")
    adapters.roster.release(ref)
    await adapters.pin("a@3", True)
    with pytest.raises(Conflict, match="pinned"):
        await discard(adapters, "a@3")
    assert current(adapters) == "a@3"


async def test_a_version_that_nothing_came_before_stays(adapters: Adapters, tmp_path: Path) -> None:
    await adapters.publish("b", write_adapter(tmp_path / "4", 4))
    await adapters.publish("b", write_adapter(tmp_path / "5", 5), activate=False)
    with pytest.raises(Conflict, match="nothing to go back to"):
        await discard(adapters, "b@1")
    assert current(adapters, "b") == "b@1"
