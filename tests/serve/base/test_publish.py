"""Publishing: whole or not at all, one maker at a time, nothing left over by the dead."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tunechat.serve.base.publish import TEMPORARY, exclusive, publishing, sweep, write_synced

HOLDER = """
import sys, time
from pathlib import Path
from tunechat.serve.base.publish import exclusive, publishing
root = Path(sys.argv[1])
with exclusive(root, "model", lambda: None), publishing(root / "model") as folder:
    (folder / "half").write_bytes(b"x")
    print("ready", flush=True)
    time.sleep(60)
"""


def leftovers(root: Path) -> list[str]:
    return [path.name for path in root.glob(f"{TEMPORARY}*")]


def test_a_block_that_ends_well_is_published(tmp_path: Path) -> None:
    with publishing(tmp_path / "model") as folder:
        write_synced(folder / "a", b"1")
        assert not (tmp_path / "model").exists()
    assert (tmp_path / "model" / "a").read_bytes() == b"1"
    assert leftovers(tmp_path) == []


def test_a_block_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="stop"), publishing(tmp_path / "model") as folder:
        (folder / "a").write_bytes(b"1")
        raise RuntimeError("stop")
    assert not (tmp_path / "model").exists() and leftovers(tmp_path) == []


def test_what_is_there_is_replaced(tmp_path: Path) -> None:
    for content in (b"1", b"2"):
        with publishing(tmp_path / "model") as folder:
            write_synced(folder / "a", content)
    assert (tmp_path / "model" / "a").read_bytes() == b"2"


def test_only_the_dead_are_swept(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        sweep(tmp_path)
        assert len(leftovers(tmp_path)) == 1
    finally:
        process.kill()
        process.communicate()
    assert len(leftovers(tmp_path)) == 1
    sweep(tmp_path)
    assert leftovers(tmp_path) == []


def test_a_link_is_not_swept(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"")
    root = tmp_path / "root"
    root.mkdir()
    (root / f"{TEMPORARY}model-1").symlink_to(outside)
    sweep(root)
    assert (outside / "kept").exists()


def test_one_at_a_time(tmp_path: Path) -> None:
    inside: list[int] = []
    most: list[int] = []
    waited: list[int] = []

    def work(number: int) -> None:
        with exclusive(tmp_path, "model", lambda: waited.append(number)):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.02)
            inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 5 and waited
