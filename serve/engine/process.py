"""The engine's process: loads a model, tells how far it is, serves until the gateway goes away."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue

from ..contract.errors import ErrorRecord, TunechatError
from ..contract.messages import EngineInfo, Fatal, FromEngine, Loading, Ready
from ..contract.wire import WireError, encode, read_messages
from .loop import Engine, Inbox, Runner, sequence_limit
from .options import IGNORED_SIGNALS, EngineOptions

logger = logging.getLogger(__name__)

Send = Callable[[FromEngine], None]
Load = Callable[[EngineOptions, Send], tuple[Runner, EngineInfo]]

_PROGRESS_SECONDS = 0.25

# A step gives up the interpreter's lock in every call of a kernel, and gets it back at once while no other thread runs
# Python. While an adapter is read, each call would wait up to a switch interval for it: 5 ms by default, times some
# thirty calls a step. At 0.1 ms the sum stays below a step's own time, and where no two threads want the lock the
# interval costs nothing.
_SWITCH_SECONDS = 1e-4

_CRASHED = ErrorRecord(
    code="engine_failed",
    message="the engine failed while it worked; it is being restarted",
    http_status=503,
    retry_after=5,
)


def main(arguments: Sequence[str], load: Load | None = None) -> int:
    """Serve on the inherited socket named in `arguments`; gives the exit status.

    0 after a shutdown, 1 after a crash, 2 for a model or settings that cannot be served. `load` makes the device side.
    """
    parser = argparse.ArgumentParser(prog="tunechat-engine", description="Started by the gateway, not by hand.")
    parser.add_argument("--fd", type=int, required=True, help="inherited end of a socket pair")
    parser.add_argument("options", help="EngineOptions as JSON")
    parsed = parser.parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s engine %(levelname)s %(message)s")
    for ignored in IGNORED_SIGNALS:
        signal.signal(ignored, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, IGNORED_SIGNALS)
    sys.setswitchinterval(_SWITCH_SECONDS)
    connection = socket.socket(fileno=parsed.fd)
    return serve(connection, EngineOptions.from_json(parsed.options), load or load_model)


def serve(connection: socket.socket, options: EngineOptions, load: Load) -> int:
    """Load, then run the loop. Everything that goes wrong is told as one Fatal message before this returns."""
    inbox: Inbox = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, inbox), name="receive", daemon=True).start()

    sending = threading.Lock()

    def send(message: FromEngine) -> None:
        frame = encode(message)
        with sending:
            connection.sendall(frame)

    try:
        runner, info = load(options, send)
        engine = Engine(runner, options, inbox=inbox, send=send, device=info.device.split(":")[0])
        # What was loaded stays until the end: collections need not look at it again.
        gc.collect()
        gc.freeze()
        send(Ready(info=info))
        engine.run()
    except TunechatError as error:
        send(Fatal(error=error.record))
        return 2
    except Exception:
        logger.exception("the engine failed")
        send(Fatal(error=_CRASHED))
        return 1
    return 0


def load_model(options: EngineOptions, send: Send) -> tuple[Runner, EngineInfo]:
    """The runner of the model that `options` name, fetched and quantised if that was never done. Raises ModelError."""
    from ..base.prepare import prepare

    report = Progress(send)
    folder = prepare(options.model, quant=options.quant, home=Path(options.home), report=report)
    report("loading", None)
    from .runner import build_runner

    runner = build_runner(folder, options)
    manifest = runner.entry.manifest
    return runner, EngineInfo(
        model=manifest.name,
        entry=str(folder),
        source_fingerprint=manifest.source_fingerprint,
        weights_fingerprint=manifest.weights_fingerprint,
        quant=manifest.quant,
        architecture=manifest.architecture,
        forward=runner.forward_name,
        device=str(runner.device),
        kernels=runner.kernels,
        context_length=sequence_limit(runner),
        vocab_size=runner.vocab_size,
        block_size=runner.block_size,
        blocks=runner.blocks,
        weight_bytes=manifest.weight_bytes,
        cache_bytes=runner.cache_bytes,
        adapter_slots=runner.adapter_slots,
        adapter_bytes=runner.adapter_bytes,
        max_adapter_rank=options.max_adapter_rank,
        hidden_size=runner.hidden_size,
    )


class Progress:
    """Tells how far loading is, a few times a second at most however often it is called."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._stage = ""
        self._sent = 0.0

    def __call__(self, stage: str, fraction: float | None) -> None:
        now = time.monotonic()
        if stage != self._stage or now - self._sent >= _PROGRESS_SECONDS:
            self._stage, self._sent = stage, now
            self._send(Loading(stage=stage, fraction=fraction))


def _receive(connection: socket.socket, inbox: Inbox) -> None:
    """Pass messages on until the gateway is gone; then there is nobody to serve, whatever the loop is doing."""
    try:
        for message in read_messages(connection):
            inbox.put(message)
    except WireError as error:
        logger.error("the gateway sent what is no message: %s", error)
        os._exit(1)
    except ConnectionError:
        # The gateway died before it had read everything.
        os._exit(0)
    os._exit(0)
