"""Where responses are asked for again: shown, continued, cancelled and deleted, each by its own tenant alone."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, TypeVar

from starlette.requests import Request

from ...contract.errors import InvalidRequest, NotFound
from ..gateway import Gateway
from .background import Background
from .items import NormalItem
from .keeper import Keeper
from .store import ResponseStore

T = TypeVar("T")

_MAX_ID = 128


class Desk:
    """The stored and the running responses of one server."""

    def __init__(self, gateway: Gateway) -> None:
        self.keeper = Keeper(gateway.settings)
        self.background = Background(gateway)

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Within it responses are stored; those that run in the background end with it."""
        async with self.keeper.lifespan(), self.background.lifespan():
            yield

    async def earlier(self, tenant: str, id_: str | None) -> list[NormalItem]:
        """The conversation that `id_` ended, empty for None. Raises InvalidRequest where there is none."""
        if id_ is None:
            return []
        found = await self._ask(lambda store: store.conversation(tenant, id_))
        if found is None:
            raise InvalidRequest(
                "There is no such response to go on from: it was not stored, has expired, or still runs.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        return found

    async def referred(self, tenant: str, ids: Sequence[str]) -> dict[str, NormalItem]:
        """Those of the items that are stored."""
        return (await self._ask(lambda store: store.items(tenant, ids)) if ids else None) or {}

    async def show(self, tenant: str, id_: str) -> dict[str, Any]:
        """The response. Raises NotFound."""
        found = await self._ask(lambda store: store.read(tenant, id_)) if len(id_) <= _MAX_ID else None
        if found is None:
            raise NotFound("There is no such response.", code="response_not_found")
        if found["status"] == "queued" and self.background.has_begun(id_):
            found["status"] = "in_progress"
        return found

    async def given(self, tenant: str, id_: str) -> list[NormalItem]:
        """The items that the response's request brought. Raises NotFound."""
        await self.show(tenant, id_)
        return await self._ask(lambda store: store.given(tenant, id_)) or []

    async def cancel(self, tenant: str, id_: str) -> dict[str, Any]:
        """The response, which runs no longer. Raises NotFound, and InvalidRequest unless it is in the background."""
        if not (await self.show(tenant, id_))["background"]:
            raise InvalidRequest("Only a response that was made with 'background': true can be cancelled.")
        await self.background.cancel(id_)
        return await self.show(tenant, id_)

    async def delete(self, tenant: str, id_: str) -> None:
        """Ends the response if it runs, and removes it. Raises NotFound."""
        await self.show(tenant, id_)
        await self.background.cancel(id_)
        await self._ask(lambda store: store.delete(tenant, id_))

    async def _ask(self, question: Callable[[ResponseStore], T]) -> T | None:
        """What the store knows; a server that stores nothing knows nothing. Raises Unavailable."""
        return await self.keeper.ask(question) if self.keeper.is_configured else None


def desk_of(request: Request) -> Desk:
    """The desk of the app that answers `request`."""
    desk = request.app.state.desk
    if not isinstance(desk, Desk):
        raise TypeError("the app has no desk")
    return desk
