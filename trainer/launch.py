"""Starts the processes of one training on this machine, as torchrun would, and ends them together.

torchrun itself takes the exit code of a paused training for a failure, answers SIGTERM by killing what is about to
write a checkpoint, and would start again by itself what the job queue starts. Over several machines, start
`torchrun ... -m tunechat.trainer FOLDER` on each instead: the processes then find one another by its addresses.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from ..serve.contract.errors import TunechatError
from ..serve.contract.jobs import DONE, FAILED, PAUSED

STORE = "workers.store"
_PAUSE = 0.05
# Seconds that the others get to find out by themselves that one is gone, and say so.
_GRACE = 15.0


class WorkerDied(TunechatError):
    """A process of the training ended without a word."""

    code = "worker_lost"
    http_status = 500


def launch(folder: Path, count: int, output: int, should_stop: Callable[[], bool]) -> int:
    """Trains the order in `folder` with `count` processes; gives the exit code. Events go to descriptor `output`.

    SIGTERM goes on to all of them when `should_stop`. Raises WorkerDied when the first of them, which speaks for all,
    ended without saying why.
    """
    (folder / STORE).unlink(missing_ok=True)
    workers = [_start(folder, rank, count, output) for rank in range(count)]
    asked = False
    failed_at: float | None = None
    try:
        while any(worker.poll() is None for worker in workers):
            if should_stop() and not asked:
                asked = True
                for worker in workers:
                    worker.send_signal(signal.SIGTERM)
            codes = [worker.returncode for worker in workers]
            if failed_at is None and any(code not in (None, DONE, PAUSED) for code in codes):
                failed_at = time.monotonic()
            if failed_at is not None and time.monotonic() - failed_at > _GRACE:
                break
            time.sleep(_PAUSE)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
        (folder / STORE).unlink(missing_ok=True)
    codes = [worker.returncode for worker in workers]
    if codes[0] in (DONE, PAUSED):
        return codes[0]
    if codes[0] != FAILED:
        rank = next((rank for rank, code in enumerate(codes) if code not in (DONE, PAUSED, FAILED, -signal.SIGKILL)), 0)
        how = f"signal {-codes[rank]}" if codes[rank] < 0 else f"exit code {codes[rank]}"
        raise WorkerDied(f"Process {rank} of the {count} that train together ended by {how}.")
    return FAILED


def _start(folder: Path, rank: int, count: int, output: int) -> subprocess.Popen[bytes]:
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    # Nothing of it leaves this machine, nor can be reached from others.
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", f"{__package__}", str(folder)],
        env=os.environ | place | {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback},
        stdin=subprocess.DEVNULL,
        stdout=output if rank == 0 else subprocess.DEVNULL,
    )
