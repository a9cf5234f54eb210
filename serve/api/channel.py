"""A bounded queue between the makers of events and their one reader."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Channel(Generic[T]):
    """First in, first out, until `close` or `fail`.

    `put` waits while `capacity` items are unread, so a reader that stalls stalls its makers and nothing grows. After
    `close` the items left are still given, then its error or None; after `fail` its error comes at once.
    """

    def __init__(self, capacity: int) -> None:
        self._items: deque[T] = deque()
        self._capacity = capacity
        self._closed = False
        self._error: BaseException | None = None
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    def __len__(self) -> int:
        return len(self._items)

    async def put(self, item: T) -> None:
        """Adds `item`, once there is room. A closed channel drops it."""
        while len(self._items) >= self._capacity and not self._closed:
            self._writable.clear()
            await self._writable.wait()
        if not self._closed:
            self._items.append(item)
            self._readable.set()

    def close(self, error: BaseException | None = None) -> None:
        """Ends the channel after what is in it. The first end stays."""
        if not self._closed:
            self._closed = True
            self._error = error
            self._readable.set()
            self._writable.set()

    def fail(self, error: BaseException) -> None:
        """Ends the channel now, dropping what is in it."""
        if not self._closed:
            self._items.clear()
        self.close(error)

    async def wait(self) -> None:
        """Returns when the next `get` would not wait. Raises the error that is all there is left."""
        await self._readable.wait()
        if not self._items and self._error is not None:
            raise self._error

    async def get(self) -> T | None:
        """The next item, or None at the end."""
        await self.wait()
        if not self._items:
            return None
        item = self._items.popleft()
        if not self._items and not self._closed:
            self._readable.clear()
        self._writable.set()
        return item
