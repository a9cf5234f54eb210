"""A queue that serves its tenants in turn."""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Rotation(Generic[Item]):
    """First in, first out for each tenant, one item of each in turn: many of one's hold up nobody else's next."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, deque[Item]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._queues)

    def put(self, tenant: str, item: Item) -> None:
        """Add an item behind all others of the tenant."""
        self._queues.setdefault(tenant, deque()).append(item)

    def take(self) -> Item:
        """The next item; its tenant goes behind all others. Raises KeyError when there is none."""
        tenant, queue = self._queues.popitem(last=False)
        item = queue.popleft()
        if queue:
            self._queues[tenant] = queue
        return item
