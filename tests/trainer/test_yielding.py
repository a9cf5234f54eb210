"""Who waits for whom, and for how long: on a clock of the test's own, but for the file and the signal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tunechat.serve.jobs.busy import BusyFile
from tunechat.trainer import yielding as module
from tunechat.trainer.yielding import Yielding, threads_for


class Clock:
    """Time that passes when somebody sleeps; `then` happens at a moment of it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.then: list[tuple[float, Callable[[], None]]] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        while self.then and self.then[0][0] <= self.now:
            self.then.pop(0)[1]()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def busy(tmp_path: Path) -> BusyFile:
    made = BusyFile(tmp_path / "busy")
    made.set(True)
    return made


@pytest.mark.parametrize(("priority", "waited"), [("background", 20.0), ("balanced", 2.0), ("training", 0.0)])
def test_waits_as_long_as_the_priority_says_and_no_longer(
    clock: Clock, busy: BusyFile, priority: str, waited: float
) -> None:
    yielding = Yielding(busy.path, priority, lambda: False)
    assert not yielding()
    assert clock.now == 0, "nothing was computed yet"
    clock.now = 2.0
    assert not yielding()
    assert clock.now - 2.0 == pytest.approx(waited, abs=0.01)
    # The wait itself is no time that was computed.
    before = clock.now
    clock.now += 0.1
    yielding()
    assert clock.now - before - 0.1 == pytest.approx(waited / 20, abs=0.01)
    assert yielding.waited == pytest.approx(waited * 1.05, abs=0.02)


def test_goes_on_as_soon_as_nobody_is_served(clock: Clock, busy: BusyFile) -> None:
    yielding = Yielding(busy.path, "background", lambda: False)
    yielding()
    clock.now = 1.0
    clock.then.append((1.5, lambda: busy.set(False)))
    assert not yielding()
    assert clock.now == pytest.approx(1.5, abs=0.01)
    clock.now = 3.0
    yielding()
    assert clock.now == 3.0


def test_being_asked_to_stop_ends_the_wait_at_once(clock: Clock, busy: BusyFile) -> None:
    asked: list[None] = []
    yielding = Yielding(busy.path, "background", lambda: bool(asked))
    yielding()
    clock.now = 5.0
    clock.then.append((6.0, lambda: asked.append(None)))
    assert yielding()
    assert clock.now == pytest.approx(6.0, abs=0.01)
    clock.now = 10.0
    assert yielding()
    assert clock.now == 10.0


@pytest.mark.parametrize("content", [None, b"", b"\0"])
def test_a_file_that_says_nothing_is_not_waited_for(clock: Clock, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "busy"
    if content is not None:
        path.write_bytes(content)
    yielding = Yielding(path, "background", lambda: False)
    yielding()
    clock.now = 1.0
    assert not yielding()
    assert clock.now == 1.0


def test_without_a_server_nothing_is_waited_for(clock: Clock) -> None:
    yielding = Yielding(None, "background", lambda: False)
    yielding()
    clock.now = 1.0
    assert not yielding()
    assert clock.now == 1.0


def test_a_file_that_is_cut_short_does_no_harm(clock: Clock, busy: BusyFile) -> None:
    yielding = Yielding(busy.path, "background", lambda: False)
    yielding()
    busy.path.write_bytes(b"")
    clock.now = 1.0
    assert not yielding()
    assert clock.now == 1.0


@pytest.mark.parametrize(
    ("priority", "given", "cores", "threads"),
    [
        ("background", 0, 8, 4),
        ("background", 0, 1, 1),
        ("background", 6, 8, 3),
        ("balanced", 0, 8, 8),
        ("training", 3, 8, 3),
        ("training", 9, 8, 8),
    ],
)
def test_the_background_has_half_of_the_cores(priority: str, given: int, cores: int, threads: int) -> None:
    assert threads_for(priority, given, cores) == threads
