"""From settings to a started engine, for the commands that run one."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING

from ..contract.messages import EngineInfo
from ..settings import Settings, SettingsError
from .output import Report, progress

if TYPE_CHECKING:
    from ..engine.client import EngineClient
    from ..engine.options import EngineOptions


_LOOK_SECONDS = 0.2


def engine_client(settings: Settings) -> EngineClient:
    """The engine that the settings describe, not started yet. Raises SettingsError if they do not go together."""
    from ..engine.client import EngineClient

    return EngineClient(
        engine_options(settings),
        max_waiting=settings.max_waiting,
        start_timeout=settings.start_timeout,
        step_timeout=settings.step_timeout,
    )


def engine_options(settings: Settings) -> EngineOptions:
    """What the engine is told. Zero and "auto" leave a choice to it, which it makes by what the machine has."""
    from ..engine.options import EngineOptions

    quant = None if settings.quant == "auto" else settings.quant
    if settings.quant == "auto" and settings.device == "cpu":
        quant = "int4"
    try:
        return EngineOptions(
            model=settings.model,
            home=str(settings.home),
            quant=quant,
            device=settings.device,
            threads=settings.threads or None,
            max_context=settings.max_context or None,
            cache_bytes=settings.cache_bytes or None,
            cache_type=settings.cache_type,
            max_batch_tokens=settings.max_batch_tokens,
            max_running=settings.max_running,
            prefill_chunk=settings.prefill_chunk or None,
            adapter_slots=settings.adapter_slots or None,
            adapter_bytes=settings.adapter_bytes or None,
            max_adapter_rank=settings.max_adapter_rank,
        )
    except ValueError as error:
        raise SettingsError(str(error)) from error


@contextmanager
def showing_start(engine: EngineClient) -> Iterator[None]:
    """Draws how far the engine's start is, from a thread of its own, when somebody watches stderr."""
    over = threading.Event()
    drawer = threading.Thread(target=_draw, args=(engine, over), name="start progress", daemon=True)
    if sys.stderr.isatty():
        drawer.start()
    try:
        yield
    finally:
        over.set()
        if drawer.is_alive():
            drawer.join()


def _draw(engine: EngineClient, over: threading.Event) -> None:
    with progress() as report:
        while engine.state in {"new", "starting"} and not over.wait(_LOOK_SECONDS):
            if engine.loading is not None:
                report(engine.loading.stage, engine.loading.fraction)


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
        await asyncio.sleep(_LOOK_SECONDS)
