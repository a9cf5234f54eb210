"""The gateway's side of adapters: what each new engine is told of them, and who waits for one to be loaded."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from ..contract.adapters import AdapterRef
from ..contract.errors import AdapterCapacity, ModelNotFound, TunechatError, Unavailable
from ..contract.messages import AdapterFailed, AdapterLoaded, AddAdapter, LoadAdapter, PinAdapter, ToEngine
from .residency import pins_full

logger = logging.getLogger(__name__)

# Errors are made anew for each who waits: a raised one carries the trace of him who raised it.
Answer = AdapterLoaded | Callable[[], TunechatError]


class ClientAdapters:
    """The adapters that requests may use. An engine that starts is told of them before any request.

    An engine answers a LoadAdapter once, and those for the same adapter in the order in which they were sent.
    """

    def __init__(self) -> None:
        self._known: dict[str, AddAdapter] = {}
        self._pinned: dict[str, None] = {}
        self._answers: defaultdict[str, deque[asyncio.Future[Answer]]] = defaultdict(deque)
        self._shared: dict[str, asyncio.Future[Answer]] = {}

    def add(self, ref: AdapterRef, folder: Path) -> AddAdapter:
        """The message that makes a version known."""
        message = AddAdapter(ref=ref, folder=str(folder))
        self._known[ref.digest] = message
        return message

    def remove(self, digest: str) -> bool:
        """Forget one; whether it was known. Whoever asks for a load of it after this gets an answer of his own."""
        self._pinned.pop(digest, None)
        self._shared.pop(digest, None)
        return self._known.pop(digest, None) is not None

    def pin(self, digest: str, pinned: bool, slots: int | None) -> None:
        """Note a pin, or its end. Raises ModelNotFound, or AdapterCapacity when none of the `slots` would stay free."""
        self.check(digest)
        if not pinned:
            self._pinned.pop(digest, None)
        elif digest not in self._pinned:
            if slots is not None and len(self._pinned) + 1 >= slots:
                raise AdapterCapacity(pins_full(slots))
            self._pinned[digest] = None

    def check(self, digest: str) -> None:
        """Raises ModelNotFound for one that is not known."""
        if digest not in self._known:
            raise ModelNotFound("this adapter was never added, or was removed", param="model")

    def announce(self, slots: int) -> Iterator[ToEngine]:
        """All that an engine of so many slots has to be told when it is new."""
        yield from self._known.values()
        most = max(0, slots - 1)
        for digest in list(self._pinned)[most:]:
            logger.warning("adapter %s is not pinned any more: the new engine has fewer places", digest)
            del self._pinned[digest]
        for digest in self._pinned:
            yield PinAdapter(digest=digest, pinned=True)

    async def load(self, digest: str, send: Callable[[ToEngine], None], seconds: float) -> AdapterLoaded:
        """The engine's answer to a LoadAdapter, one for all who ask meanwhile. Raises what it says, or Unavailable when
        it says nothing for so long."""
        answer = self._shared.get(digest)
        if answer is None:
            answer = self._shared[digest] = asyncio.get_running_loop().create_future()
            self._answers[digest].append(answer)
            send(LoadAdapter(digest=digest))
        try:
            async with asyncio.timeout(seconds):
                got = await asyncio.shield(answer)
        except TimeoutError:
            raise Unavailable(f"the adapter was not loaded within {seconds:.0f} seconds") from None
        if not isinstance(got, AdapterLoaded):
            raise got()
        return got

    def answer(self, message: AdapterLoaded | AdapterFailed) -> None:
        """Pass an engine's answer on to all who wait for it."""
        waiting = self._answers.get(message.digest)
        if not waiting:
            return
        future = waiting.popleft()
        if not waiting:
            del self._answers[message.digest]
        if self._shared.get(message.digest) is future:
            del self._shared[message.digest]
        if isinstance(message, AdapterLoaded):
            future.set_result(message)
        else:
            future.set_result(partial(TunechatError.from_record, message.error))

    def fail_all(self, error: Callable[[], TunechatError]) -> None:
        """No answer will come: tell all who wait for one."""
        answers = list(self._answers.values())
        self._answers.clear()
        self._shared.clear()
        for waiting in answers:
            for future in waiting:
                future.set_result(error)
