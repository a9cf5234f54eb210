"""Writing and copying files, and locks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tunechat.serve.adapters.durable import copy_bounded, locked, locked_if_free, replace_synced, write_synced
from tunechat.serve.contract.errors import UnsupportedFormat


def test_never_writes_over_a_file(tmp_path: Path) -> None:
    write_synced(tmp_path / "a", b"1")
    for call in (lambda: write_synced(tmp_path / "a", b"2"), lambda: copy_bounded(tmp_path / "a", tmp_path / "a", 9)):
        with pytest.raises(FileExistsError):
            call()
    assert (tmp_path / "a").read_bytes() == b"1"


def test_replaces_whole(tmp_path: Path) -> None:
    for content in (b"1" * 100, b"2"):
        replace_synced(tmp_path / "a", content)
        assert (tmp_path / "a").read_bytes() == content
    assert os.listdir(tmp_path) == ["a"]


def test_copies_up_to_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(3 << 20))
    copy_bounded(tmp_path / "a", tmp_path / "b", 3 << 20)
    assert (tmp_path / "b").stat().st_size == 3 << 20
    with pytest.raises(UnsupportedFormat):
        copy_bounded(tmp_path / "a", tmp_path / "c", (3 << 20) - 1)


def test_copies_only_ordinary_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(UnsupportedFormat):
            copy_bounded(path, tmp_path / "copy", 10)
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="symbolic link"):
        copy_bounded(tmp_path / "link", tmp_path / "copy", 1000)
    assert not (tmp_path / "copy").exists()


HOLDER = """
import sys, time
from pathlib import Path
from tunechat.serve.adapters.durable import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_dies_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "a.lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with locked_if_free(path) as free:
            assert not free
    finally:
        holder.kill()
        holder.communicate(timeout=20)
    with locked(path), locked_if_free(path) as free:
        assert not free
    with locked_if_free(path) as free:
        assert free
