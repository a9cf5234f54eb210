"""From settings to a started engine, for the commands that run one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from ..contract.messages import EngineInfo
from ..settings import Settings, SettingsError
from .output import Report

if TYPE_CHECKING:
    from ..engine.client import EngineClient
    from ..engine.options import EngineOptions


def engine_options(settings: Settings) -> EngineOptions:
    """What the engine is told. Raises SettingsError for settings that do not go together."""
    from ..engine.options import EngineOptions

    try:
        return EngineOptions(
            model=settings.model,
            quant=settings.quant,
            home=str(settings.home),
            device=settings.device,
            threads=settings.threads or None,
            max_context=settings.max_context or None,
            cache_bytes=settings.cache_bytes or None,
            max_batch_tokens=settings.max_batch_tokens,
            max_running=settings.max_running,
        )
    except ValueError as error:
        raise SettingsError(str(error)) from error


@asynccontextmanager
async def started(engine: EngineClient, report: Report) -> AsyncIterator[EngineInfo]:
    """The engine, ready, with its start shown; closed at the end. Raises what its start failed with."""
    watcher = asyncio.create_task(_watch(engine, report))
    try:
        await engine.start()
        info = await engine.wait_ready()
        report("ready", 1.0)
        yield info
    finally:
        watcher.cancel()
        with suppress(asyncio.CancelledError):
            await watcher
        await engine.close()


async def _watch(engine: EngineClient, report: Report) -> None:
    while True:
        if engine.loading is not None:
            report(engine.loading.stage, engine.loading.fraction)
        await asyncio.sleep(0.2)
