"""Acts on what happens in a watched folder: what is dropped in is served, what is taken out is not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from pathlib import Path

from ..adapters.quarantine import Quarantine, Quarantined
from ..adapters.watch import Event, FolderWatch, Imported, Refused
from ..contract.errors import ModelNotFound, TunechatError, Unavailable
from .lifecycle import Adapters

log = logging.getLogger(__name__)

_RETRY_SECONDS = 2.0


class Watching:
    """Watches `root` until it is closed. A folder that cannot be served is quarantined, with the reason."""

    def __init__(self, root: Path, adapters: Adapters, quarantine: Quarantine) -> None:
        self._adapters = adapters
        self._quarantine = quarantine
        self._watch = FolderWatch(root, adapters.store, quarantine, adapters.intake)
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def close(self) -> None:
        self._stop.set()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            async for event in self._watch.events(self._stop):
                await self._act(event)
        except Exception:
            log.exception("the folder of adapters is watched no longer")

    async def _act(self, event: Event) -> None:
        match event:
            case Imported():
                await self._serve(event)
            case Refused():
                log.warning("adapter quarantined", extra={"adapter": event.name, "reason": event.held.error.message})
            case _:
                with contextlib.suppress(ModelNotFound):
                    self._adapters.unload(event.name)

    async def _serve(self, event: Imported) -> None:
        while True:
            try:
                await self._adapters.adopt(event.version)
            except Unavailable as error:
                # The engine is starting again, or full. The folder is good, and nobody else would try it again.
                log.warning("adapter waits", extra={"adapter": event.version.ref.id, "reason": error.message})
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            except TunechatError as error:
                held = Quarantined(name=event.name, error=error.record, since=int(time.time()))
                await asyncio.to_thread(self._quarantine.put, held)
                log.warning("adapter quarantined", extra={"adapter": event.name, "reason": error.message})
            return
