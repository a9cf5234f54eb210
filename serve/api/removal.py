"""Removal of a fine-tuned model by whoever made it."""

from __future__ import annotations

import asyncio

from ..adapters.names import parse_id
from ..contract.errors import Conflict
from .lifecycle import Adapters


async def discard(adapters: Adapters, text: str) -> None:
    """Removes "support@2", or everything under "support". A name whose current version goes means its previous one.

    Raises ModelNotFound, and Conflict as `Adapters.remove` does; a name that cannot go back keeps its version.
    """
    name, number = parse_id(text)
    stored = await asyncio.to_thread(adapters.store.of, name)
    if number is not None and number == stored.current and len(stored.versions) > 1:
        if busy := next((one for one in adapters.roster.of(text) if one.requests), None):
            raise Conflict(f"{busy.ref.id} is in use ({busy.requests}); try again when that is over")
        if number in stored.pinned:
            raise Conflict(f"{text} is pinned; unpin it first")
        await adapters.rollback(name)
    await adapters.remove(text)
