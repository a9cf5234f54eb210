"""Threads that work on adapters: how much of a core they take, and when."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tunechat.serve.adapters.background import as_this_thread, breathe, yield_to_requests


def rested(is_busy: Callable[[], bool] | None, work: float = 0.004, *, yields: bool = True) -> list[float]:
    """The rests that a thread takes after `work` seconds of its core, and after none."""
    rests: list[float] = []

    def run() -> None:
        if yields:
            yield_to_requests(is_busy)
        until = time.thread_time() + work
        while time.thread_time() < until:
            sum(range(100))
        breathe()
        breathe()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tunechat.serve.adapters.background.time.sleep", rests.append)
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    return rests


def test_a_thread_rests_for_longer_than_it_worked_while_requests_run() -> None:
    [rest] = rested(lambda: True)
    assert 0.006 <= rest < 1


@pytest.mark.parametrize("work", [0.0, 0.004])
def test_a_thread_does_not_rest_when_nobody_waits_or_it_has_hardly_worked(work: float) -> None:
    assert rested(lambda: work == 0.0, work) == []
    assert rested(None, work) == []
    assert rested(lambda: True, work, yields=False) == []


def test_a_helping_thread_has_the_same_manners() -> None:
    asked = threading.Event()

    def is_busy() -> bool:
        asked.set()
        return False

    def help_with_it() -> None:
        until = time.thread_time() + 0.004
        while time.thread_time() < until:
            sum(range(100))
        breathe()

    def work() -> None:
        yield_to_requests(is_busy)
        with ThreadPoolExecutor(1, initializer=as_this_thread()) as helper:
            helper.submit(help_with_it).result()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert asked.is_set()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a priority for each thread")
def test_only_the_thread_that_yields_is_put_back() -> None:
    found: list[int] = []

    def run() -> None:
        yield_to_requests()
        found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found[0] > before == os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
