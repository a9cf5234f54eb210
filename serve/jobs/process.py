"""One trainer's process: started with all that it starts, listened to within bounds, and ended with no leftovers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import IO

import msgspec

from ..contract.jobs import TrainingEvent
from .death import kills_for_memory, reason
from .job import JobError
from .log import CappedLog

LONGEST_LINE = 256 * 1024
_GUARD = (sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py")))
_BLOCK = 64 * 1024
_PAUSE = 0.005  # seconds after each block: a process that floods its output gets 13 MB/s, and not the event loop
_GUARD_SECONDS = 3.0
_QUOTED = 120


class BadOutput(Exception):
    """The process wrote what is no event. The message says what."""


class TrainerProcess:
    """A running process. `events` is to be iterated once, `ended` awaited in any case.

    `was_asked` says whether it was told to stop.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        lifeline: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        outputs: Sequence[tuple[asyncio.StreamReader, asyncio.ReadTransport]],
        log: CappedLog,
    ) -> None:
        self._process = process
        self._alive, self._lifeline = lifeline
        (self._stdout, _), (stderr, _) = outputs
        self._transports = [transport for _, transport in outputs]
        self._log = log
        self._logging = asyncio.create_task(self._keep_log(stderr))
        self._reaping: asyncio.Task[None] | None = None
        self._kills = kills_for_memory()
        self.was_asked = False

    @staticmethod
    async def start(command: Sequence[str], log: Path, *, most_log: int = 8 << 20) -> TrainerProcess:
        """Starts `command` under a guard, in a session of its own. Raises OSError when that cannot be."""
        ours, theirs = socket.socketpair()
        try:
            process = _popen(command, theirs)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        lifeline = await asyncio.open_connection(sock=ours)
        outputs = [await _reader(pipe) for pipe in (process.stdout, process.stderr) if pipe is not None]
        return TrainerProcess(process, lifeline, outputs, CappedLog(log, most_log))

    @property
    def pid(self) -> int:
        """The guard's process id, which is the id of the session and its group too."""
        return self._process.pid

    async def events(self, silence: float) -> AsyncIterator[list[TrainingEvent]]:
        """What the process says, in the pieces that it arrives in, until it says no more.

        Raises BadOutput for a line that is too long or no event, and after `silence` seconds with none.
        """
        rest = b""
        while True:
            try:
                data = await asyncio.wait_for(self._stdout.read(_BLOCK), silence)
            except TimeoutError as error:
                raise BadOutput(f"the training said nothing for {silence:.0f} s, and was ended") from error
            *lines, rest = (rest + data).split(b"\n")
            if not data and rest:
                lines, rest = [rest], b""
            if max(map(len, (*lines, rest))) > LONGEST_LINE:
                raise BadOutput(f"the training wrote a line of more than {LONGEST_LINE} bytes")
            found = [_event(line) for line in lines if line.strip()]
            if found:
                yield found
            if not data:
                return
            await asyncio.sleep(_PAUSE)

    def ask_to_stop(self) -> None:
        """Sends SIGTERM to the trainer, once."""
        if not self.was_asked and self._process.poll() is None:
            self.was_asked = True
            self._process.terminate()

    def kill(self) -> None:
        """Kills the trainer and all that it has started; `ended` returns soon after."""
        # The guard takes the end of the lifeline for the death of its server.
        if not self._lifeline.is_closing() and self._lifeline.can_write_eof():
            self._lifeline.write_eof()

    async def ended(self, within: float | None = None) -> int:
        """The exit status, negative for a signal, when the process and its log are at their end.

        After `within` seconds it is killed. Nothing of it is left when this returns.
        """
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._alive.read(), within)
        finally:
            self.kill()
            if self._reaping is None:
                self._reaping = asyncio.create_task(self._reap())
            await asyncio.shield(self._reaping)
        return self._process.returncode

    def reason(self, status: int) -> JobError:
        """Why it died, when nobody asked it to."""
        return reason(status, self._log.last_lines(), self._kills, kills_for_memory())

    async def _reap(self) -> None:
        try:
            await asyncio.to_thread(self._process.wait, _GUARD_SECONDS)
        except subprocess.TimeoutExpired:
            # A guard that is stopped or starved cannot do its work.
            os.killpg(self._process.pid, signal.SIGKILL)
            await asyncio.to_thread(self._process.wait)
        # A process that has escaped the guard may hold the pipe.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._logging, _GUARD_SECONDS)
        self._log.close()
        self._lifeline.close()
        for transport in self._transports:
            transport.close()

    async def _keep_log(self, stderr: asyncio.StreamReader) -> None:
        while data := await stderr.read(_BLOCK):
            self._log.write(data)
            await asyncio.sleep(_PAUSE)


def _popen(command: Sequence[str], lifeline: socket.socket) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - the command is ours, never a user's
        [*_GUARD, *command],
        stdin=lifeline.fileno(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


async def _reader(pipe: IO[bytes]) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    reader = asyncio.StreamReader(_BLOCK)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    return reader, transport


def _event(line: bytes) -> TrainingEvent:
    try:
        event: TrainingEvent = msgspec.json.decode(line, type=TrainingEvent)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        quoted = ascii(line[:_QUOTED].decode("utf-8", "replace"))
        raise BadOutput(f"the training wrote a line that is no event ({error}): {quoted}") from error
    return event
