"""Starts the processes of one training on this machine, as torchrun would, and ends them together.

torchrun itself takes the exit code of a paused training for a failure, answers SIGTERM by killing what is about to
write a checkpoint, and would start again by itself what the job queue starts. Over several machines, start
`torchrun ... -m tunechat.trainer FOLDER` on each instead: the processes then find one another by its addresses.
"""

from __future__ import annotations

import ctypes
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
_SET_DEATH_SIGNAL = 1
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
    workers: list[subprocess.Popen[bytes]] = []
    asked = False
    died: tuple[int, int] | None = None
    until = float("inf")
    try:
        workers += (_start(folder, rank, count, output) for rank in range(count))
        while None in [worker.poll() for worker in workers] and time.monotonic() < until:
            if should_stop() and not asked:
                asked = True
                for worker in workers:
                    worker.send_signal(signal.SIGTERM)
            if died is None and (found := [(n, w.returncode) for n, w in enumerate(workers) if w.returncode]):
                died = next(((number, code) for number, code in found if code != PAUSED), None)
                until = time.monotonic() + _GRACE if died else until
            time.sleep(_PAUSE)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
        (folder / STORE).unlink(missing_ok=True)
    code = workers[0].returncode
    if code in (DONE, PAUSED, FAILED):
        return code
    number, code = died or (0, code)
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    raise WorkerDied(f"Process {number} of the {count} that train together ended by {how}.")


def end_with_parent() -> None:
    """Has the kernel stop this process as soon as the one that started it is gone. Linux only; see prctl(2)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGTERM)


def _start(folder: Path, rank: int, count: int, output: int) -> subprocess.Popen[bytes]:
    place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    # Nothing of it leaves this machine, nor can be reached from others.
    loopback = next((name for _, name in socket.if_nameindex() if name.startswith("lo")), "lo")
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", str(__package__), str(folder)],
        env=os.environ | place | {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback},
        stdin=subprocess.DEVNULL,
        stdout=output if rank == 0 else subprocess.DEVNULL,
    )
