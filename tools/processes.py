"""Runs a program confined and limited: no network, no files but the listed ones, nothing that outlives the call."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .confine import TIMED_OUT
from .errors import ToolFailed

_PROGRAM = Path(__file__).with_name("confine.py")
_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime", "/dev/urandom")
_GRACE = 2.0  # seconds for the supervising child to end everything, before it is ended itself


@dataclass(frozen=True, slots=True)
class Confinement:
    """The limits of one child: seconds, bytes of memory and of disk (each), processes, and bytes of output kept."""

    seconds: float = 10.0
    memory: int = 1 << 30
    disk: int = 64 << 20
    processes: int = 64
    output: int = 64 << 10


@dataclass(frozen=True, slots=True)
class Finished:
    """How it ended: the exit status, what it wrote (both streams together), and whether that or its time ran out."""

    code: int
    output: str
    timed_out: bool
    truncated: bool


async def run_confined(
    argv: Sequence[str], *, stdin: bytes = b"", limits: Confinement | None = None, readable: Sequence[Path] = ()
) -> Finished:
    """Runs `argv` in an empty folder with `stdin`, able to read the system, this Python, and `readable`.

    Cancelling ends the program and all that it started. Raises ToolFailed when it cannot be started.
    """
    limits = limits or Confinement()
    with tempfile.TemporaryDirectory(prefix="tunechat-") as folder:
        spec = {
            "argv": list(argv),
            "folder": folder,
            "seconds": limits.seconds,
            "memory": limits.memory,
            "disk": limits.disk,
            "processes": limits.processes,
            "readable": [*_SYSTEM, sys.prefix, sys.base_prefix, *map(str, readable)],
        }
        try:
            process = await start(
                _end,
                sys.executable,
                *("-I", "-S", str(_PROGRAM), json.dumps(spec)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                env={"PATH": os.defpath},
            )
        except OSError as error:
            raise ToolFailed(f"a process cannot be started: {error.strerror}") from error
        try:
            output, truncated = await _communicate(process, stdin, limits)
        finally:
            await to_the_end(lambda: _end(process))
    code = process.returncode or 0
    timed_out = not truncated and code in (TIMED_OUT, -signal.SIGKILL)
    return Finished(code, output.decode("utf-8", "replace"), timed_out, truncated)


async def start(
    end: Callable[[asyncio.subprocess.Process], Awaitable[None]], *argv: str, **options: Any
) -> asyncio.subprocess.Process:
    """A child that is not lost when the caller is cancelled while it starts: `end` ends it then.

    Takes what `asyncio.create_subprocess_exec` takes, and raises what that raises.
    """
    starting = asyncio.ensure_future(asyncio.create_subprocess_exec(*argv, **options))
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:

        async def end_it() -> None:
            await asyncio.wait({starting})
            if not starting.cancelled() and starting.exception() is None:
                await end(starting.result())

        await to_the_end(end_it)
        raise


async def to_the_end(work: Callable[[], Awaitable[Any]]) -> None:
    """Awaits `work()` until it is done, however often the caller is cancelled meanwhile; the cancellation comes then.

    A loop that shuts down cancels every task once, the work's own too: then the work is begun again, so it has to be
    such that it may be.
    """
    cancelled: asyncio.CancelledError | None = None
    task = asyncio.ensure_future(work())
    while not task.done() or task.cancelled():
        if task.cancelled():
            task = asyncio.ensure_future(work())
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled


async def _communicate(process: asyncio.subprocess.Process, stdin: bytes, limits: Confinement) -> tuple[bytes, bool]:
    if process.stdin is None or process.stdout is None:
        raise ToolFailed("a process has no pipes")
    process.stdin.write(stdin)
    process.stdin.close()
    kept = bytearray()
    with suppress(TimeoutError):
        # The child keeps the deadline itself; this one is for a child that does not.
        async with asyncio.timeout(limits.seconds + _GRACE):
            while chunk := await process.stdout.read(1 << 16):
                kept += chunk
                if len(kept) > limits.output:
                    return bytes(kept[: limits.output]), True
            await process.wait()
    return bytes(kept), False


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ends the child and its group, first by asking the one that can end what left the group."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                # asyncio tells that a process has ended only once its output is read.
                while process.stdout is not None and await process.stdout.read(1 << 16):
                    continue
                await process.wait()
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    close_pipes(process)
    await process.wait()


def close_pipes(process: asyncio.subprocess.Process) -> None:
    """Lets go of the child's pipes, read to their end or not, without which `wait` may never return.

    asyncio has no public way to do it.
    """
    transport = getattr(process, "_transport", None)
    if transport is not None:
        transport.close()
