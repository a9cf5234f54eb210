"""One change of an adapter at a time: who comes second is told, and an unload cancels the load that is under way."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from ..contract.errors import Conflict


@dataclass(slots=True, eq=False)
class Change:
    """A change of one name. `number` is the version that is being loaded, once it is known."""

    name: str
    is_load: bool
    number: int | None = None
    is_cancelled: bool = False
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def check(self) -> None:
        """Raises Conflict when the adapter was unloaded meanwhile."""
        if self.is_cancelled:
            raise Conflict(f"{self.name} was unloaded while it was being loaded")


class Changes:
    """The changes under way, by name. All calls must come from the event loop."""

    def __init__(self) -> None:
        self._running: dict[str, Change] = {}

    @contextlib.asynccontextmanager
    async def begin(self, name: str, *, is_load: bool = False, wait: bool = False) -> AsyncIterator[Change]:
        """Keeps others from changing `name`. Raises Conflict when somebody does already, unless told to `wait`."""
        while (other := self._running.get(name)) is not None:
            if not wait:
                raise Conflict(f"{name} is being changed by another request; try again when that is done")
            await other.done.wait()
        change = self._running[name] = Change(name, is_load)
        try:
            yield change
        finally:
            del self._running[name]
            change.done.set()

    def cancel(self, name: str, number: int | None) -> bool:
        """Cancels the load of `name`, or of its version `number`; whether there was one."""
        change = self._running.get(name)
        if change is None or not change.is_load or number not in (None, change.number):
            return False
        change.is_cancelled = True
        return True
