"""Compiles a grammar in a process that may be killed, before the engine compiles it on a thread, which may not.

The limits of llguidance bound most of what a grammar can cost, but not all: what it forces to follow, properties that
may be left out, multiples of large numbers. This is the bound on the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, NoReturn

from .grammar_tokenizer import grammar_tokenizer
from .parser_limits import parser_limits

if TYPE_CHECKING:
    from llguidance import LLParserLimits, LLTokenizer

Verdict = Literal["good", "costly", "unreadable", "broken"]

logger = logging.getLogger(__name__)

# Seconds of processor time: a machine that is busy takes longer, and refuses nothing for that.
BUDGET_SECONDS = 0.25
MAX_BYTES = 512 << 20
_PATIENCE_SECONDS = 30.0
_LENGTH = 4
_ANSWERS: dict[bytes, Verdict] = {b"+": "good", b"-": "costly", b"!": "unreadable"}


class GrammarTrial:
    """A child that tries one grammar after the other, each in a fork of its own. Belongs to one thread.

    The child starts when told to `start` or with the first grammar, and reads the tokenizer then: about half a second.
    """

    def __init__(self, folder: Path, vocab_size: int, eos_token_ids: tuple[int, ...]) -> None:
        self._command = (
            sys.executable,
            "-P",
            "-m",
            __spec__.name,
            str(folder),
            str(vocab_size),
            *(str(token) for token in eos_token_ids),
        )
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the child if it is not there; does not wait for it."""
        try:
            self._running()
        except OSError as error:
            logger.error("grammars cannot be tried: %s", error)

    def judge(self, text: str) -> Verdict:
        """Whether it compiles and gives its first mask, or is found to be wrong, within the budget.

        "unreadable" says that llguidance panicked, "broken" that it could not be tried; the log says why.
        """
        try:
            return self._ask(text.encode())
        except OSError as error:
            logger.error("a grammar could not be tried: %s", error)
            self.close()
            return "broken"

    def close(self) -> None:
        """End the child; the next grammar starts another."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            child.wait()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self.close()
            self._child = subprocess.Popen(  # noqa: S603 - the command is ours, never a user's
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
        return self._child

    def _ask(self, text: bytes) -> Verdict:
        child = self._running()
        if child.stdin is None or child.stdout is None:
            raise OSError("a child without pipes")
        child.stdin.write(len(text).to_bytes(_LENGTH, "little") + text)
        child.stdin.flush()
        # Its own clock ends it long before, unless it never gets to run.
        ready, _, _ = select.select([child.stdout], [], [], _PATIENCE_SECONDS)
        answer = child.stdout.read(1) if ready else b""
        if answer not in _ANSWERS:
            raise OSError("the child is gone, or does not answer")
        return _ANSWERS[answer]


def main(arguments: Sequence[str]) -> int:
    """Try what comes on stdin until it ends."""
    parser = argparse.ArgumentParser(prog="tunechat-grammar-trial", description="Started by the engine, not by hand.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("vocab_size", type=int)
    parser.add_argument("eos_token_ids", type=int, nargs="*")
    parsed = parser.parse_args(arguments)
    tokenizer = grammar_tokenizer(parsed.folder, parsed.vocab_size, tuple(parsed.eos_token_ids))
    limits = parser_limits()
    orders, answers = sys.stdin.buffer, sys.stdout.buffer
    while (text := _next(orders)) is not None:
        child = os.fork()
        if child == 0:
            _try(tokenizer, text, limits)
        _, status = os.waitpid(child, 0)
        answers.write(b"+" if status == 0 else b"-" if os.WIFSIGNALED(status) else b"!")
        answers.flush()
    return 0


def _next(orders: BinaryIO) -> str | None:
    size = orders.read(_LENGTH)
    return orders.read(int.from_bytes(size, "little")).decode() if len(size) == _LENGTH else None


def _try(tokenizer: LLTokenizer, text: str, limits: LLParserLimits) -> NoReturn:
    """Ends the process, with status 0 unless llguidance panics; its own word on the grammar counts elsewhere."""
    status = 1
    try:
        from llguidance import LLMatcher

        _bound()
        matcher = LLMatcher(tokenizer, text, log_level=0, limits=limits)
        if not matcher.is_error():
            matcher.compute_bitmask()
        status = 0
    finally:
        os._exit(status)


def _bound() -> None:
    """The system ends this process, whatever it does, when the time is used or the memory."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, BUDGET_SECONDS)
    if sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + MAX_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
