"""The gateway's only way to the engine: starts it, watches it, mends it, and streams its tokens."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from ..contract.adapters import AdapterRef
from ..contract.errors import EngineFailed, ErrorRecord, Overloaded, TunechatError, Unavailable
from ..contract.messages import (
    Abort,
    AdapterFailed,
    AdapterLoaded,
    AdapterUse,
    EngineInfo,
    EngineStats,
    Fatal,
    FromEngine,
    Heartbeat,
    Loading,
    PinAdapter,
    Ready,
    RemoveAdapter,
    SequenceOutput,
    Shutdown,
    StepOutputs,
    Submit,
    ToEngine,
)
from ..contract.sampling import SamplingParams
from .admission import check_adapters, check_request
from .child import Child
from .client_adapters import ClientAdapters
from .options import EngineOptions
from .outage import State, engine_died, obituary, shutting_down, unavailable
from .pace import Pace
from .restarts import Restarts
from .stream import OutputStream

logger = logging.getLogger(__name__)

# -P keeps the working directory off the module path: whoever may write there must not choose what the engine imports.
ENGINE_COMMAND = (sys.executable, "-P", "-m", "tunechat.serve.engine")
_TICK_SECONDS = 0.25
_SHUTDOWN_SECONDS = 5.0


class EngineClient:
    """An engine process, kept alive. All methods belong to one event loop.

    `max_waiting` sequences may wait beyond those that run at once. An engine that says nothing for `step_timeout`
    seconds, or `start_timeout` while it loads, is killed. When an engine dies, everyone who waits for it gets one
    EngineFailed, and a new one, with the same adapters, is started after a growing pause; `failed` is final, and comes
    after repeated deaths or at once for a model or setting that cannot be served. `command` starts an engine.
    """

    def __init__(
        self,
        options: EngineOptions,
        *,
        max_waiting: int = 256,
        start_timeout: float = 900.0,
        step_timeout: float = 60.0,
        load_timeout: float = 60.0,
        restarts: Restarts | None = None,
        command: Sequence[str] = ENGINE_COMMAND,
    ) -> None:
        self.options = options
        self._most_pending = max_waiting + options.max_running
        self._start_timeout = start_timeout
        self._step_timeout = step_timeout
        self._load_timeout = load_timeout
        self._restarts = restarts or Restarts()
        self._command = tuple(command)
        self._state: State = "new"
        self._changed = asyncio.Event()
        self._info: EngineInfo | None = None
        self._stats = EngineStats()
        self._loading: Loading | None = None
        self._failure: ErrorRecord | None = None
        self._cause: ErrorRecord | None = None
        self._is_final = False
        self._child: Child | None = None
        self._task: asyncio.Task[None] | None = None
        self._streams: dict[str, OutputStream] = {}
        self._adapters = ClientAdapters()
        self._pace = Pace()
        self._engines = 0

    @property
    def state(self) -> State:
        return self._state

    @property
    def is_ready(self) -> bool:
        return self._state == "ready"

    @property
    def _is_closed(self) -> bool:
        return self._state == "closed"

    @property
    def info(self) -> EngineInfo | None:
        """What the engine serves; of the last engine while a new one starts."""
        return self._info

    @property
    def stats(self) -> EngineStats:
        """As of the last heartbeat; at most about a second old while the engine is ready."""
        return self._stats

    @property
    def loading(self) -> Loading | None:
        """How far the start is; None once it is over."""
        return self._loading

    @property
    def failure(self) -> ErrorRecord | None:
        """Why the last engine died; None if none did."""
        return self._failure

    @property
    def pending(self) -> int:
        """Sequences submitted and not ended."""
        return len(self._streams)

    @property
    def restarts(self) -> int:
        """How many engines were started after the first."""
        return max(0, self._engines - 1)

    @property
    def pid(self) -> int | None:
        """The engine's process, if there is one now."""
        return None if self._child is None else self._child.pid

    async def start(self) -> None:
        """Start the engine and return at once; `wait_ready` waits."""
        if self._task is None and self._state == "new":
            self._set_state("starting")
            self._task = asyncio.create_task(self._supervise(), name="engine supervisor")

    async def wait_ready(self) -> EngineInfo:
        """Waits until requests are taken. Raises why they never will be."""
        while not (self.is_ready and self._info is not None):
            if self._state == "failed" and self._failure is not None:
                raise TunechatError.from_record(self._failure)
            if self._state in ("closed", "new"):
                raise Unavailable(f"the engine is {self._state}")
            await self._changed.wait()
        return self._info

    async def close(self) -> None:
        """End the engine; whoever still waits for it gets Unavailable."""
        if self._is_closed:
            return
        was_ready = self.is_ready
        self._set_state("closed")
        self._fail_all(shutting_down)
        if self._child is not None and was_ready:
            self._child.send(Shutdown())
            asyncio.get_running_loop().call_later(_SHUTDOWN_SECONDS, self._child.kill)
        elif self._child is not None:
            self._child.kill()
        if self._task is not None:
            await self._task

    def add_adapter(self, ref: AdapterRef, folder: Path) -> None:
        """Let requests use this version, of this engine and of those that replace it. Nothing is read yet."""
        self._tell(self._adapters.add(ref, folder))

    async def load_adapter(self, digest: str) -> AdapterLoaded:
        """Have a version that was added read and checked now; returns once it is in memory.

        Raises why that is not possible: Unavailable, ModelNotFound, AdapterCapacity, EngineFailed, InvalidAdapter, or
        Conflict when it is removed meanwhile. Several callers share one reading.
        """
        self._adapters.check(digest)
        if self._child is None or not self.is_ready:
            raise unavailable(self._state)
        return await self._adapters.load(digest, self._child.send, self._load_timeout)

    def pin_adapter(self, digest: str, pinned: bool) -> None:
        """Keep a version on the device once it is there, or let it go. Raises ModelNotFound or AdapterCapacity."""
        self._adapters.pin(digest, pinned, None if self._info is None else self._info.adapter_slots)
        self._tell(PinAdapter(digest=digest, pinned=pinned))

    def remove_adapter(self, digest: str) -> None:
        """Let no new request use a version; those that run end with it. Unknown ones are ignored."""
        if self._adapters.remove(digest):
            self._tell(RemoveAdapter(digest=digest))

    def generate(
        self,
        prompt: list[int],
        params: SamplingParams,
        *,
        sequence: str,
        salt: str = "",
        adapters: tuple[AdapterUse, ...] = (),
    ) -> AsyncIterator[SequenceOutput]:
        """Outputs of one sequence; `sequence` must never have been used before.

        Leaving the iterator early, or cancelling it, aborts the sequence.

        Raises at once what can be known at once: Unavailable, Overloaded, ContextLengthExceeded, InvalidRequest,
        ModelNotFound. The iterator raises these too, AdapterCapacity, what is wrong with an adapter, and EngineFailed
        when the engine dies; outputs that came before are given first.
        """
        submit = Submit(sequence=sequence, prompt=prompt, params=params, salt=salt, adapters=adapters)
        self._check(submit)
        return self._outputs(submit)

    async def _outputs(self, submit: Submit) -> AsyncIterator[SequenceOutput]:
        child = self._check(submit)
        stream = self._streams[submit.sequence] = OutputStream()
        try:
            child.send(submit)
            while True:
                output = await stream.take()
                yield output
                if output.finish is not None:
                    return
        finally:
            if self._streams.get(submit.sequence) is stream:
                del self._streams[submit.sequence]
                child.send(Abort(sequence=submit.sequence))

    def _check(self, submit: Submit) -> Child:
        if self._child is None or self._info is None or not self.is_ready:
            raise unavailable(self._state)
        if len(self._streams) >= self._most_pending:
            raise Overloaded(
                f"{len(self._streams)} sequences are running or waiting, as many as this server takes",
                retry_after=self._pace.seconds_until(len(self._streams) // 2),
            )
        if submit.sequence in self._streams:
            raise ValueError(f"sequence {submit.sequence!r} is running already")
        info = self._info
        check_request(submit.prompt, submit.params, limit=info.context_length, vocab_size=info.vocab_size)
        check_adapters(submit.adapters, info.adapter_slots)
        for use in submit.adapters:
            self._adapters.check(use.digest)
        return self._child

    def _tell(self, message: ToEngine) -> None:
        """Send what an engine that is still to come learns when it is ready."""
        if self._child is not None and self.is_ready:
            self._child.send(message)

    async def _supervise(self) -> None:
        """Start engines one after another until it is no use or the client is closed."""
        while not self._is_closed:
            try:
                await self._run_one()
            except OSError as error:
                self._failure = ErrorRecord(code="config_error", message=f"cannot start the engine: {error.strerror}")
                self._is_final = True
            if self._is_closed:
                return
            now = asyncio.get_running_loop().time()
            delay = None if self._is_final else self._restarts.next_delay(now)
            if delay is None:
                logger.log(
                    # Who waits for the engine is told of a wrong model or setting; one line about it is enough.
                    logging.DEBUG if self._is_final else logging.ERROR,
                    "the engine is given up: %s",
                    "" if self._failure is None else self._failure.message,
                )
                self._set_state("failed")
                return
            logger.warning("the engine is started again in %.2f s", delay)
            await self._pause(delay)

    async def _pause(self, seconds: float) -> None:
        """Wait, but not beyond a change of state: the client may be closed meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _run_one(self) -> None:
        """One engine's life."""
        self._loading, self._cause = Loading(stage="starting"), None
        self._child = await Child.spawn(self._command, self.options, self._receive, self._lose)
        self._engines += 1
        try:
            if not self._is_closed:
                await self._watch(self._child)
        finally:
            status = await self._child.end()
            self._child = None
            logger.log(logging.DEBUG if self._is_final else logging.INFO, "the engine ended with status %d", status)
        self._failure = self._cause or ErrorRecord(code="engine_failed", message=obituary(status), http_status=503)

    async def _watch(self, child: Child) -> None:
        """Returns when the engine is gone, or has been silent for too long."""
        seen, silence, last = 0, 0.0, asyncio.get_running_loop().time()
        while not child.lost.is_set():
            try:
                async with asyncio.timeout(_TICK_SECONDS):
                    await child.lost.wait()
            except TimeoutError:
                now = asyncio.get_running_loop().time()
                # A gateway that was stopped itself, as by a laptop's sleep, must not take its own gap for the engine's.
                silence, last = silence + min(now - last, 2 * _TICK_SECONDS), now
            if child.messages != seen:
                seen, silence = child.messages, 0.0
            elif silence > (self._step_timeout if self.is_ready else self._start_timeout):
                message = f"the engine said nothing for {silence:.0f} seconds and was killed"
                logger.error(message)
                self._cause = ErrorRecord(code="engine_failed", message=message, http_status=503)
                self._lose()
                return

    def _receive(self, message: FromEngine) -> None:
        match message:
            case StepOutputs():
                for output in message.outputs:
                    self._deliver(output)
            case Heartbeat():
                self._stats = message.stats
            case Loading():
                self._loading = message
            case Ready():
                self._info, self._loading, self._stats = message.info, None, EngineStats()
                if not self._is_closed:
                    self._set_state("ready")
                    for told in self._adapters.announce(message.info.adapter_slots):
                        self._tell(told)
            case AdapterLoaded() | AdapterFailed():
                self._adapters.answer(message)
            case Fatal():
                self._cause = message.error
                self._is_final = not self.is_ready and message.error.code != EngineFailed.code

    def _deliver(self, output: SequenceOutput) -> None:
        stream = self._streams.get(output.sequence)
        if stream is None:
            return
        stream.push(output)
        if stream.is_over:
            del self._streams[output.sequence]
            self._pace.note_end(asyncio.get_running_loop().time())

    def _lose(self) -> None:
        """The engine can do no more: tell everybody who waits for it."""
        if not self._is_closed:
            self._set_state("restarting")
        self._stats = EngineStats()
        self._fail_all(engine_died)

    def _fail_all(self, error: Callable[[], TunechatError]) -> None:
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.fail(error())
        self._adapters.fail_all(error)

    def _set_state(self, state: State) -> None:
        self._state = state
        self._changed.set()
        self._changed = asyncio.Event()
