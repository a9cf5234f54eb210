"""One change of a name at a time."""

from __future__ import annotations

import asyncio

import pytest

from tunechat.serve.api.changes import Changes
from tunechat.serve.contract.errors import Conflict


async def test_the_second_is_told_and_other_names_go_on() -> None:
    changes = Changes()
    async with changes.begin("a"):
        with pytest.raises(Conflict, match="a is being changed"):
            async with changes.begin("a"):
                pass
        async with changes.begin("b"):
            pass
    async with changes.begin("a"):
        pass


async def test_who_waits_gets_its_turn_and_turns_do_not_overlap() -> None:
    changes = Changes()
    running = 0

    async def change() -> None:
        nonlocal running
        async with changes.begin("a", wait=True):
            running += 1
            assert running == 1
            await asyncio.sleep(0)
            running -= 1

    await asyncio.gather(*(change() for _ in range(20)))


async def test_a_change_that_fails_ends() -> None:
    changes = Changes()
    with pytest.raises(ZeroDivisionError):
        async with changes.begin("a"):
            raise ZeroDivisionError
    async with changes.begin("a"):
        pass


@pytest.mark.parametrize(
    ("is_load", "number", "cancelled"), [(True, None, True), (True, 3, True), (True, 2, False), (False, None, False)]
)
async def test_only_the_load_that_is_meant_is_cancelled(is_load: bool, number: int | None, cancelled: bool) -> None:
    changes = Changes()
    assert not changes.cancel("a", None)
    async with changes.begin("a", is_load=is_load) as change:
        change.number = 3
        assert changes.cancel("a", number) == cancelled
        if cancelled:
            with pytest.raises(Conflict, match="unloaded while it was being loaded"):
                change.check()
        else:
            change.check()
