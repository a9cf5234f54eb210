from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from queue import SimpleQueue

import pytest

from tunechat.serve.contract.adapters import AdapterRef
from tunechat.serve.contract.errors import BaseModelMismatch
from tunechat.serve.engine.adapter_loader import AdapterLoader, AdapterRead
from tunechat.serve.engine.known_adapter import HostAdapter
from tunechat.tests.serve.engine.toy import ToyAdapter


def ref(digest: str) -> AdapterRef:
    return AdapterRef(name=digest, number=2, digest=digest)


def test_readings_come_one_after_another_from_a_thread_of_lower_priority() -> None:
    came: SimpleQueue[AdapterRead] = SimpleQueue()
    seen = []

    def read(ref: AdapterRef, folder: Path) -> HostAdapter:
        nice = os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) if sys.platform == "linux" else None
        seen.append((ref.digest, folder, threading.current_thread(), nice))
        return ToyAdapter(ref.digest, 7)

    before = threading.active_count()
    loader = AdapterLoader(read, came.put)
    assert threading.active_count() == before
    for digest in "abc":
        loader.load(ref(digest), Path("store", digest))
    assert [came.get(timeout=10) for _ in "abc"] == [AdapterRead(name, host=ToyAdapter(name, 7)) for name in "abc"]
    assert [entry[:2] for entry in seen] == [(name, Path("store", name)) for name in "abc"]
    assert len({entry[2] for entry in seen}) == 1
    assert threading.main_thread() not in {entry[2] for entry in seen}
    if sys.platform == "linux":
        own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        assert {entry[3] for entry in seen} == {min(19, own + 4)}


def test_what_goes_wrong_is_told_and_the_next_is_read(caplog: pytest.LogCaptureFixture) -> None:
    came: SimpleQueue[AdapterRead] = SimpleQueue()

    def read(ref: AdapterRef, folder: Path) -> HostAdapter:
        match ref.digest:
            case "other":
                raise BaseModelMismatch("it was made for another model")
            case "evil":
                raise ZeroDivisionError("secret /path")
            case "big":
                raise MemoryError
        return ToyAdapter(ref.digest, 1)

    loader = AdapterLoader(read, came.put)
    for digest in ("other", "evil", "big", "good"):
        loader.load(ref(digest), Path("x"))
    reads = [came.get(timeout=10) for _ in range(4)]
    assert [read.error and (read.error.code, read.error.http_status) for read in reads] == [
        ("base_model_mismatch", 422),
        ("adapter_load_failed", 500),
        ("adapter_load_failed", 500),
        None,
    ]
    assert reads[1].error is not None
    assert "secret" not in reads[1].error.message
    assert "ZeroDivisionError" in caplog.text
    assert "evil@2" in caplog.text
