"""What is said of a process that died."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tunechat.serve.jobs.death import kills_for_memory, reason


@pytest.mark.parametrize(
    ("status", "lines", "kills", "code", "words"),
    [
        (-signal.SIGKILL, [], (2, 3), "out_of_memory", "the machine's memory was used up"),
        (-signal.SIGKILL, [], (2, 2), "trainer_failed", "killed by SIGKILL; the system does so when memory is used up"),
        (-signal.SIGKILL, [], (None, None), "trainer_failed", "SIGKILL"),
        (-signal.SIGSEGV, [], (2, 3), "trainer_failed", "SIGSEGV"),
        (1, ["torch.OutOfMemoryError: CUDA out of memory."], (0, 0), "out_of_memory", "exit status 1"),
        (1, ["RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory"], (0, 0), "out_of_memory", ""),
        (1, ["OSError: [Errno 28] No space left on device"], (0, 0), "insufficient_storage", "the disk is full"),
        (-63, [], (0, 0), "trainer_failed", ""),
        (127, ["python cannot be started: gone"], (0, 0), "trainer_failed", "cannot be started: gone"),
    ],
)
def test_the_reason(status: int, lines: list[str], kills: tuple[int | None, int | None], code: str, words: str) -> None:
    error = reason(status, lines, *kills)
    assert error.code == code
    assert words in error.message
    assert all(line in error.message for line in lines)
    assert ("batch_tokens" in error.message) == (code == "out_of_memory")


def test_the_kernels_count_is_read_where_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "memory.events"
    assert kills_for_memory(path) is None
    path.write_text("low 0\noom 4\noom_kill 3\noom_group_kill 1\n")
    assert kills_for_memory(path) == 3
    path.write_text("low 0\n")
    assert kills_for_memory(path) is None
