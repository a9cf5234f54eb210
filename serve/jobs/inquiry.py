"""Questions about recipes and data, asked of a child of the trainer that lives as long as one answer takes.

Files come from anybody, and what reads them may need all the memory or time that there is, or die. So it is never done
in the server: the child has bounds, a group of its own, and is gone when whoever asked has left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import TypeVar

import msgspec

from ..contract.errors import InvalidRequest, Overloaded, TunechatError, Unavailable
from ..contract.inquiry import AnyAnswer, AnyQuestion, Refused
from .background import aside

logger = logging.getLogger(__name__)

COMMAND = (sys.executable, "-P", "-m", "tunechat.trainer.inquiry")
_BLOCK = 64 * 1024
_MOST_ANSWERED = 16 << 20
_MOST_LOGGED = 4096
_LEFTOVER_SECONDS = 3.0
_ALONE = {
    # Threads of libraries take cores from serving, and addresses from the child.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "RAYON_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MALLOC_ARENA_MAX": "2",
    "HF_HUB_OFFLINE": "1",
}

Answer = TypeVar("Answer", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a child may take: bytes of addresses, seconds of a core, and seconds in all."""

    memory: int = 3 << 30
    seconds: int = 60
    in_all: float = 180.0


# For somebody who waits, and for a job that does.
BRIEF = Limits()
LONG = Limits(seconds=3600, in_all=4 * 3600.0)


class Inquiries:
    """Asks questions, `at_once` at a time; `waiting` more may wait."""

    def __init__(self, command: Sequence[str] = COMMAND, *, at_once: int = 2, waiting: int = 16) -> None:
        self._command = tuple(command)
        self._room = asyncio.Semaphore(at_once)
        self._most_waiting = waiting
        self._waiting = 0

    async def ask(
        self, question: AnyQuestion, kind: type[Answer], limits: Limits = BRIEF, *, patient: bool = False
    ) -> Answer:
        """The answer, which is a `kind`. One who is `patient` waits however many do.

        Raises what the child refuses with: InvalidRequest, `param` being a key of the recipe or a place in the data.
        That is raised, too, with the code `too_costly`, for what needs more than `limits`, and `unreadable` where the
        reader of a file dies of it. Raises Overloaded when too many wait, Unavailable when no child can be started, and
        TunechatError when it fails by a defect.
        """
        async with self._turn(patient=patient):
            with contextlib.ExitStack() as stack:
                folder = await aside(TemporaryDirectory[str], prefix="tunechat-inquiry-", ignore_cleanup_errors=True)
                stack.callback(folder.cleanup)
                status, said, told = await self._run(msgspec.json.encode(question), folder.name, limits)
        if status:
            raise _failure(status, told, limits)
        reply = _decoded(said)
        if isinstance(reply, Refused):
            raise TunechatError.from_record(reply.error)
        if not isinstance(reply, kind):
            raise TunechatError("the trainer's child answered another question")
        return reply

    @contextlib.asynccontextmanager
    async def _turn(self, *, patient: bool) -> AsyncIterator[None]:
        if self._room.locked() and not patient and self._waiting >= self._most_waiting:
            raise Overloaded("Others are having their data looked at; try again in a moment.", retry_after=10)
        self._waiting += 1
        try:
            await self._room.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._room.release()

    async def _run(self, question: bytes, folder: str, limits: Limits) -> tuple[int, bytes, bytes]:
        """Exit status, output and the end of the errors of a child, which is gone when this returns or raises."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TUNECHAT_")}
        try:
            process = await asyncio.create_subprocess_exec(
                *(*self._command, str(limits.memory), str(limits.seconds)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=_BLOCK,
                cwd=folder,
                env=environment | _ALONE | {"TMPDIR": folder},
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable(
                f"data cannot be looked at now: {error.strerror or error}", code="inquiry_failed"
            ) from error
        try:
            async with asyncio.timeout(limits.in_all):
                said, told = await _talk(process, question)
                status = await process.wait()
        except TimeoutError:
            return -signal.SIGXCPU, b"", b""
        finally:
            await _end(process)
        return status, said, told


async def _talk(process: asyncio.subprocess.Process, question: bytes) -> tuple[bytes, bytes]:
    """What the child says when it was given the question, on both of its outputs."""
    saying = asyncio.create_task(_all_of(process.stdout))
    telling = asyncio.create_task(_end_of(process.stderr))
    giving = asyncio.create_task(_give(process.stdin, question))
    tasks = (saying, telling, giving)
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return saying.result(), telling.result()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kills the child's group; returns when the child is gone, however often it is told to hurry."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    ending = asyncio.ensure_future(_gone(process))
    try:
        await asyncio.shield(ending)
    except asyncio.CancelledError:
        await asyncio.wait([ending])
        raise


async def _gone(process: asyncio.subprocess.Process) -> None:
    """Returns when the child has ended. asyncio tells that only once the child's pipes were read to their end."""
    reading = [asyncio.ensure_future(_emptied(stream)) for stream in (process.stdout, process.stderr)]
    waiting = asyncio.ensure_future(process.wait())
    await asyncio.wait([waiting], timeout=_LEFTOVER_SECONDS)
    if not waiting.done():
        # Something that left the child's group holds a pipe. asyncio has no public way to let go of it.
        getattr(process, "_transport").close()  # noqa: B009 - typeshed does not know it
    await waiting
    for task in reading:
        task.cancel()
    await asyncio.gather(*reading, return_exceptions=True)


async def _emptied(stream: asyncio.StreamReader | None) -> None:
    while stream is not None and await stream.read(_BLOCK):
        continue


async def _give(stdin: asyncio.StreamWriter | None, question: bytes) -> None:
    if stdin is None:
        return
    # One that is dead tells why by its status.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stdin.write(question)
        await stdin.drain()
        stdin.close()
        await stdin.wait_closed()


async def _all_of(stdout: asyncio.StreamReader | None) -> bytes:
    said = bytearray()
    while stdout is not None and (block := await stdout.read(_BLOCK)):
        said += block
        if len(said) > _MOST_ANSWERED:
            raise TunechatError(f"the trainer's child answered with more than {_MOST_ANSWERED >> 20} MiB")
    return bytes(said)


async def _end_of(stderr: asyncio.StreamReader | None) -> bytes:
    told = b""
    while stderr is not None and (block := await stderr.read(_BLOCK)):
        told = (told + block)[-_MOST_LOGGED:]
    return told


def _failure(status: int, told: bytes, limits: Limits) -> TunechatError:
    """Why a child that gave no answer ended."""
    lines = " | ".join(ascii(line)[1:-1] for line in told.decode("utf-8", "replace").splitlines() if line.strip())
    logger.warning("a question about data ended with status %d: %s", status, lines)
    if status in (-signal.SIGXCPU, -signal.SIGKILL):
        return InvalidRequest(
            f"Looking at this takes more than {limits.seconds} seconds of a core or {limits.memory >> 30} GiB of "
            "memory, which is more than is given to it; split the file.",
            code="too_costly",
        )
    if status < 0 or b"MemoryError" in told:
        return InvalidRequest("What reads this file died of it; write the file anew.", code="unreadable")
    return TunechatError("the trainer's child failed; the server's log has its last words")


def _decoded(said: bytes) -> AnyAnswer:
    try:
        reply: AnyAnswer = msgspec.json.decode(said, type=AnyAnswer)
    except msgspec.MsgspecError as error:
        raise TunechatError(f"the trainer's child gave no answer: {error}") from error
    return reply
