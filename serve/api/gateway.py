"""What all routes share: the engine, the text side once it is loaded, and whether requests can be served."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request

from ..contract.errors import ErrorRecord, ModelNotFound, TunechatError, Unavailable
from ..contract.messages import EngineInfo
from .context import RequestContext, request_context
from .drain import Drain, leaving
from .errors import INTERNAL
from .generation import Generation, SequencePlan
from .metrics import Metrics
from .ports import Engine, Text
from .settings import ApiSettings

log = logging.getLogger(__name__)

_FINGERPRINT_DIGITS = 12
_SALT_DIGITS = 32


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as replies name it. `fingerprint` changes when the weights do."""

    name: str
    fingerprint: str


class Gateway:
    """One server's state. `start` returns at once; the engine and the text side load behind it."""

    def __init__(
        self, engine: Engine, settings: ApiSettings, metrics: Metrics, load_text: Callable[[Path], Text]
    ) -> None:
        self.engine = engine
        self.settings = settings
        self.metrics = metrics
        self.drain = Drain()
        self.created = int(time.time())
        self.settled = asyncio.Event()
        self._load_text = load_text
        self._text: Text | None = None
        self._failure: ErrorRecord | None = None
        self._loading: asyncio.Task[None] | None = None
        self._names = frozenset({settings.model, *settings.model_aliases})

    async def start(self) -> None:
        await self.engine.start()
        self._loading = asyncio.create_task(self._load())

    async def close(self) -> None:
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        await self.engine.close()

    async def _load(self) -> None:
        try:
            await self.engine.wait_ready()
            self._text = await asyncio.to_thread(self._load_text, Path(self.info.entry))
        except TunechatError as error:
            self._failure = error.record
        except Exception:
            log.exception("the model cannot be served")
            self._failure = INTERNAL
        finally:
            self.settled.set()

    @property
    def failure(self) -> ErrorRecord | None:
        """Why this server will never serve, or None."""
        return self.engine.failure if self.engine.state == "failed" else self._failure

    @property
    def is_ready(self) -> bool:
        return self._text is not None and self.engine.is_ready and not self.drain.is_draining

    @property
    def info(self) -> EngineInfo:
        """What the engine serves. Raises Unavailable before it is known."""
        if self.engine.info is None:
            raise self._not_ready()
        return self.engine.info

    @property
    def context_length(self) -> int:
        """How many tokens one sequence may have: the model's own limit, or all of the cache where that is smaller."""
        info = self.info
        return min(info.context_length, info.blocks * info.block_size)

    @property
    def text(self) -> Text:
        """The text side. Raises Unavailable until requests can be served."""
        if self._text is None or not self.engine.is_ready:
            raise self._not_ready()
        return self._text

    def _not_ready(self) -> Unavailable:
        if self.drain.is_draining:
            return leaving()
        if self.failure is not None:
            return Unavailable("The model failed to load; see the server's log.", code="model_failed", retry_after=60)
        return Unavailable("The model is being loaded; try again in a moment.", code="model_loading")

    def model(self, name: str | None) -> ServedModel:
        """The model that a request means; None means the served one. Raises ModelNotFound, or Unavailable."""
        if name is not None:
            self.check_model(name)
        fingerprint = self.info.weights_fingerprint.rpartition(":")[2]
        return ServedModel(self.settings.model, f"fp_{fingerprint[:_FINGERPRINT_DIGITS]}")

    def check_model(self, name: str) -> None:
        """Raises ModelNotFound unless `name` is one of the served model's."""
        if name not in self._names:
            raise ModelNotFound(f"The model '{name[:64]}' does not exist here.", param="model")

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Starts on entry and closes on exit."""
        await self.start()
        try:
            yield
        finally:
            await self.close()

    def generation(self, request: Request, plans: Sequence[SequencePlan], cache_salt: str | None) -> Generation:
        """A started generation, known to the drain. Whoever takes it owes it a `release`."""
        context = request_context(request)
        generation = Generation(
            self.engine,
            self.text,
            plans,
            request_id=context.id,
            salt=prefix_salt(context.tenant, cache_salt),
            timeout=self.settings.request_timeout,
            observer=self.metrics,
        )
        generation.start()
        context.usage = generation.usage
        self.drain.track(generation)
        return generation

    async def release(self, generation: Generation, context: RequestContext) -> None:
        """Ends `generation`, aborting what still runs."""
        self.drain.forget(generation)
        context.time_to_first_token = generation.time_to_first_token
        await generation.aclose()


def prefix_salt(tenant: str, cache_salt: str | None) -> str:
    """What parts the prefix caches of tenants, and of the salts that one tenant chooses; "" without either.

    Timing then tells nobody what others have asked (CVE-2025-46570).
    """
    if not tenant and not cache_salt:
        return ""
    return hashlib.sha256(f"{tenant}\0{cache_salt or ''}".encode()).hexdigest()[:_SALT_DIGITS]


def gateway_of(request: Request) -> Gateway:
    """The gateway of the app that answers `request`."""
    gateway = request.app.state.gateway
    if not isinstance(gateway, Gateway):
        raise TypeError("the app has no gateway")
    return gateway
