"""One request with its response: how it ends, and that it is stored before anybody hears of its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from ...contract.errors import ErrorRecord
from ..events import Usage
from ..ports import Text
from ..tool_steps import FIELD, AnswerPart
from .items import NormalItem
from .keeper import Keeper
from .output import Output
from .reply import Reply, usage_json
from .store import StoredResponse


@dataclass(frozen=True, slots=True)
class Exchange:
    """A response on its way. `context` are the items before the request, `given` its own."""

    reply: Reply
    tenant: str
    context: Sequence[NormalItem]
    given: Sequence[NormalItem]
    output: Output
    text: Text
    keeper: Keeper

    async def read(self, parts: AsyncIterator[AnswerPart]) -> None:
        """Takes all parts, for those who want no events."""
        async for part in parts:
            for _ in self.output.push(part):
                continue

    async def conclude(self, usage: Usage) -> dict[str, Any]:
        """The complete response, stored if it is to be. Raises Unavailable where it cannot be."""
        status = "incomplete" if self.output.reason == "length" else "completed"
        return await self._ended(status, usage)

    async def fail(self, usage: Usage, error: ErrorRecord) -> dict[str, Any]:
        """The response that ended with `error`, with what there is of it; stored if it runs in the background."""
        return await self._ended("failed", usage, error)

    async def cancel(self, usage: Usage) -> dict[str, Any]:
        """The response that was cancelled, with what there is of it."""
        return await self._ended("cancelled", usage)

    async def announce(self) -> dict[str, Any]:
        """The response that has yet to come, stored so that it can be asked for."""
        body = self.reply.as_json("queued")
        await self._store(body)
        return body

    async def _ended(self, status: str, usage: Usage, error: ErrorRecord | None = None) -> dict[str, Any]:
        reasoning = self.output.reasoning
        tokens = len(await asyncio.to_thread(self.text.encode, reasoning)) if reasoning else 0
        self.output.interrupt()
        items = self.output.items
        body = self.reply.as_json(status, items, usage=usage_json(usage, tokens), error=error)
        if self.output.spent is not None:
            body[FIELD] = self.output.spent
        is_whole = status in ("completed", "incomplete")
        if self.reply.is_stored and (is_whole or self.reply.request.background):
            await self._store(body, items)
        return body

    async def _store(self, body: dict[str, Any], output: Sequence[NormalItem] = ()) -> None:
        response = StoredResponse(
            self.reply.id, self.tenant, self.reply.created, body, self.context, self.given, tuple(output)
        )
        await self.keeper.ask(lambda store: store.save(response))
