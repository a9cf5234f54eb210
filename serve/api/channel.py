"""A bounded queue between the makers of events and their one reader; a failure overtakes what is queued."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Channel(Generic[T]):
    """First in, first out, until `fail` or `close`.

    `put` waits while `capacity` items are unread, so a reader that stalls stalls its makers and nothing grows. After
    `fail` every `get` raises that error at once; after `close` the items left are still given, then None.
    """

    def __init__(self, capacity: int) -> None:
        self._items: deque[T] = deque()
        self._capacity = capacity
        self._closed = False
        self._error: BaseException | None = None
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    async def put(self, item: T) -> None:
        while len(self._items) >= self._capacity and self._error is None:
            self._writable.clear()
            await self._writable.wait()
        self._items.append(item)
        self._readable.set()

    def fail(self, error: BaseException) -> None:
        """Makes the reader raise `error`. The first failure stays."""
        if self._error is None:
            self._error = error
        self._readable.set()
        self._writable.set()

    def close(self) -> None:
        self._closed = True
        self._readable.set()

    async def wait(self) -> None:
        """Returns when the next `get` would not wait; raises the failure, if there is one."""
        await self._readable.wait()
        if self._error is not None:
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
