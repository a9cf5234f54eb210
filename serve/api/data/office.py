"""Where a server has its questions about recipes and data answered, and remembers what never changes."""

from __future__ import annotations

import asyncio

from starlette.requests import Request

from ...contract.inquiry import AskRecipes, ReadyMadeRecipes
from ...jobs.inquiry import Inquiries


class Office:
    """The inquiries of one application, and its ready-made recipes once somebody has asked for them."""

    def __init__(self, inquiries: Inquiries) -> None:
        self.inquiries = inquiries
        self._recipes: ReadyMadeRecipes | None = None
        self._asking = asyncio.Lock()

    async def recipes(self) -> ReadyMadeRecipes:
        """The ready-made recipes. Raises what `Inquiries.ask` raises."""
        if self._recipes is None:
            async with self._asking:
                if self._recipes is None:
                    self._recipes = await self.inquiries.ask(AskRecipes(), ReadyMadeRecipes)
        return self._recipes


def office_of(request: Request) -> Office:
    """The office of the application that `request` came to."""
    office: Office = request.app.state.office
    return office
