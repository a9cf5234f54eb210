"""Responses that are made while nobody waits for them, until they end, are cancelled, or the server leaves."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import ExitStack
from dataclasses import dataclass

from ...contract.errors import TunechatError
from ..context import RequestContext
from ..drain import leaving
from ..errors import public_record
from ..gateway import Answer, Gateway
from ..tool_steps import AnswerPart
from .exchange import Exchange

log = logging.getLogger(__name__)


class Cancelled(TunechatError):
    """The user wants this response no longer. Nobody is told of this error."""


@dataclass(frozen=True, slots=True)
class Run:
    """A response in the making, and what it holds until its end."""

    exchange: Exchange
    answer: Answer
    context: RequestContext
    closing: ExitStack


class Background:
    """The runs of one server, by the ids of their responses."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._runs: dict[str, tuple[Run, asyncio.Task[None]]] = {}

    def start(self, run: Run, parts: AsyncIterator[AnswerPart]) -> None:
        """Takes `run` over: from here on it ends by itself."""
        id_ = run.exchange.reply.id
        self._runs[id_] = run, asyncio.create_task(self._run(run, parts), name=id_)

    def has_begun(self, id_: str) -> bool:
        """Whether the response is being generated: not waiting, and not over."""
        return id_ in self._runs and self._runs[id_][0].answer.started

    async def cancel(self, id_: str) -> None:
        """Ends the response, if it still runs, and returns when its end is stored."""
        if id_ in self._runs:
            run, task = self._runs[id_]
            run.answer.fail(Cancelled("The response was cancelled."))
            await asyncio.shield(asyncio.gather(task, return_exceptions=True))

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """On exit, whatever still runs ends with an error that is stored."""
        try:
            yield
        finally:
            running = list(self._runs.values())
            for run, _ in running:
                run.answer.fail(leaving())
            await asyncio.gather(*(task for _, task in running), return_exceptions=True)

    async def _run(self, run: Run, parts: AsyncIterator[AnswerPart]) -> None:
        gateway, exchange, context = self._gateway, run.exchange, run.context
        usage = run.answer.usage
        try:
            with run.closing, gateway.drain.request():
                try:
                    await exchange.read(parts)
                finally:
                    await gateway.release(run.answer, context)
                await exchange.conclude(usage)
        except Cancelled:
            await self._told(exchange.cancel(usage), context)
        except Exception as error:
            record = public_record(error)
            fields = {"request_id": context.id, "code": record.code}
            log.warning("response in the background failed", extra=fields, exc_info=error)
            await self._told(exchange.fail(usage, record), context)
        finally:
            gateway.metrics.count_usage(usage)
            gateway.metrics.count_adapters(context.adapters, usage, context.time_to_first_token)
            del self._runs[exchange.reply.id]

    async def _told(self, ending: Awaitable[object], context: RequestContext) -> None:
        """Stores how a run ended; where even that fails there is nobody to tell but the log."""
        try:
            await ending
        except TunechatError as error:
            log.error("the end of a response was not stored", extra={"request_id": context.id}, exc_info=error)
