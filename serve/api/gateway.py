"""What all routes share: the engine, the text side once it is loaded, and whether requests can be served."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
from starlette.requests import Request

from ..adapters.quarantine import Quarantine
from ..contract.base import BaseManifest
from ..contract.errors import ErrorRecord, ModelError, TunechatError, Unavailable
from ..contract.messages import EngineInfo
from ..text.dialects import Dialect, choose_dialect
from .context import RequestContext, request_context
from .drain import Drain, Running, leaving
from .errors import INTERNAL
from .events import Usage
from .generation import Generation, SequencePlan
from .lifecycle import Adapters
from .metrics import Metrics
from .ports import Engine, Text
from .served import FINGERPRINT_DIGITS, ServedModel, Weighted, acquire, composed, model_not_found, with_adapter
from .server_tools import OpenToolbox, ServerTools
from .settings import ApiSettings
from .upload import Uploads
from .watching import Watching

log = logging.getLogger(__name__)

_SALT_DIGITS = 32


class Answer(Running, Protocol):
    """What makes the answer to a request: one generation, or several with tools between them."""

    usage: Usage
    time_to_first_token: float | None

    async def wait_first(self, limit: float) -> None: ...

    async def aclose(self) -> None: ...


class Gateway:
    """One server's state. `start` returns at once; the engine and the text side load behind it."""

    def __init__(
        self,
        engine: Engine,
        settings: ApiSettings,
        metrics: Metrics,
        load_text: Callable[[Path], Text],
        open_tools: OpenToolbox | None = None,
    ) -> None:
        self.engine = engine
        self.settings = settings
        self.metrics = metrics
        self.drain = Drain()
        self.created = int(time.time())
        self.settled = asyncio.Event()
        self._load_text = load_text
        self._text: Text | None = None
        self._dialect: Dialect | None = None
        self._failure: ErrorRecord | None = None
        self._loading: asyncio.Task[None] | None = None
        self.names = frozenset({settings.model, *settings.model_aliases})
        self.adapters = Adapters(engine, settings, metrics.forget_adapter, lambda: self.drain.is_generating)
        self.tools = ServerTools(open_tools, settings.server_tools, settings.tool_policies)
        self.quarantine: Quarantine | None = None
        self._watching: Watching | None = None
        self._uploads: Uploads | None = None
        metrics.watch_adapters(self.adapters.roster.all)

    async def start(self) -> None:
        await self.engine.start()
        self._loading = asyncio.create_task(self._load())
        self.tools.start(self.settled)

    async def close(self) -> None:
        await self.tools.close()
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.gather(self._loading, return_exceptions=True)
        if self._watching is not None:
            await self._watching.close()
        await self.engine.close()

    async def _load(self) -> None:
        try:
            await self.engine.wait_ready()
            entry = Path(self.info.entry)
            text = await asyncio.to_thread(self._load_text, entry)
            self._dialect = await asyncio.to_thread(choose_dialect, text, self.settings.tool_dialect)
            await self._open_adapters(entry)
            self._text = text
        except TunechatError as error:
            self._failure = error.record
        except Exception:
            log.exception("the model cannot be served")
            self._failure = INTERNAL
        finally:
            self.settled.set()

    async def _open_adapters(self, entry: Path) -> None:
        """Serves what is stored, before the first request is taken, and begins to watch the folder, if there is one."""
        if self.settings.adapter_store is None:
            return
        await self.adapters.open(await asyncio.to_thread(read_base, entry))
        self.quarantine = await asyncio.to_thread(Quarantine, self.settings.adapter_store)
        if self.settings.adapter_folder is not None:
            self._watching = Watching(self.settings.adapter_folder, self.adapters, self.quarantine)

    @property
    def uploads(self) -> Uploads:
        """Where uploads go. Raises what `adapters.store` raises."""
        if self._uploads is None:
            self._uploads = Uploads(self.adapters.store.root, self.settings.max_upload_bytes)
        return self._uploads

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

    @property
    def dialect(self) -> Dialect:
        """How the model writes calls. Raises Unavailable until the text side is loaded."""
        if self._dialect is None:
            raise self._not_ready()
        return self._dialect

    def _not_ready(self) -> Unavailable:
        if self.drain.is_draining:
            return leaving()
        if self.failure is not None:
            return Unavailable("The model failed to load; see the server's log.", code="model_failed", retry_after=60)
        return Unavailable("The model is being loaded; try again in a moment.", code="model_loading")

    @property
    def base(self) -> ServedModel:
        """The base alone. Raises Unavailable before it is known."""
        fingerprint = self.info.weights_fingerprint.rpartition(":")[2]
        return ServedModel(self.settings.model, f"fp_{fingerprint[:FINGERPRINT_DIGITS]}")

    def serve(self, model: str, adapters: Sequence[Weighted] | None, context: RequestContext) -> ServedModel:
        """The weights that a request means, which stay as they are until it ends.

        Nothing is looked up anywhere but in memory. Raises ModelNotFound, InvalidRequest, Unavailable.
        """
        is_base, closing, lender = model in self.names, context.closing, self.adapters.view(context.sees)
        if adapters:
            served = composed(
                self.base,
                model,
                adapters,
                lambda name, param: acquire(lender, name, closing, param),
                is_base=is_base,
                most=self.info.adapter_slots,
            )
        elif is_base:
            served = self.base
        elif self.settled.is_set():
            served = with_adapter(self.base, acquire(lender, model, closing))
        else:
            raise self.missing(model)
        context.model = served.name
        context.adapters = tuple(ref.id for ref in served.adapters)
        return served

    def check_model(self, name: str | None, context: RequestContext) -> None:
        """Raises ModelNotFound unless `name` is the base's, that of an adapter that the request may use, or None."""
        if name is None or name in self.names or self.adapters.view(context.sees).knows(name):
            return
        raise self.missing(name)

    def missing(self, name: str) -> TunechatError:
        """What is said of a model that is not here, or may come yet, or that the request may not see."""
        return model_not_found(name) if self.settled.is_set() else self._not_ready()

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        """Starts on entry and closes on exit."""
        await self.start()
        try:
            yield
        finally:
            await self.close()

    def generation(
        self, request: Request, plans: Sequence[SequencePlan], cache_salt: str | None, model: ServedModel
    ) -> Generation:
        """A started generation, known to the drain. Whoever takes it owes it a `release`."""
        context = request_context(request)
        generation = self.begin(context, plans, cache_salt, model)
        self.track(generation, context)
        return generation

    def begin(
        self,
        context: RequestContext,
        plans: Sequence[SequencePlan],
        cache_salt: str | None,
        model: ServedModel,
        *,
        turn: int = 0,
    ) -> Generation:
        """A started generation that is turn number `turn` of the request's answer. Whoever takes it closes it."""
        generation = Generation(
            self.engine,
            self.text,
            plans,
            request_id=f"{context.id}.{turn}" if turn else context.id,
            salt=prefix_salt(context.tenant, cache_salt),
            timeout=self.settings.request_timeout,
            observer=self.metrics,
            adapters=model.uses,
        )
        generation.start()
        return generation

    def track(self, answer: Answer, context: RequestContext) -> None:
        """Makes `answer` known to the drain, and its tokens the request's. `release` undoes it."""
        context.usage = answer.usage
        self.drain.track(answer)

    async def release(self, answer: Answer, context: RequestContext) -> None:
        """Ends `answer`, aborting what still runs."""
        self.drain.forget(answer)
        context.time_to_first_token = answer.time_to_first_token
        await answer.aclose()


def prefix_salt(tenant: str, cache_salt: str | None) -> str:
    """What parts the prefix caches of tenants, and of the salts that one tenant chooses; "" without either.

    Timing then tells nobody what others have asked (CVE-2025-46570).
    """
    if not tenant and not cache_salt:
        return ""
    return hashlib.sha256(f"{tenant}\0{cache_salt or ''}".encode()).hexdigest()[:_SALT_DIGITS]


def read_base(entry: Path) -> BaseManifest:
    """What a prepared base says of itself. Raises ModelError."""
    try:
        return msgspec.json.decode((entry / "manifest.json").read_bytes(), type=BaseManifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise ModelError("the prepared model has no manifest that can be read; remove it and start again") from error


def gateway_of(request: Request) -> Gateway:
    """The gateway of the app that answers `request`."""
    gateway = request.app.state.gateway
    if not isinstance(gateway, Gateway):
        raise TypeError("the app has no gateway")
    return gateway
