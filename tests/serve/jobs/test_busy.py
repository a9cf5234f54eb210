"""The byte that says whether requests are being answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunechat.serve.jobs.busy import BusyFile


def test_others_read_what_is_said(tmp_path: Path) -> None:
    path = tmp_path / "jobs" / "busy"
    file = BusyFile(path)
    assert path.read_bytes() == b"\0"
    file.set(True)
    assert path.read_bytes() == b"\1"
    file.close()
    assert path.read_bytes() == b"\0"


def test_what_a_dead_server_left_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "busy"
    path.write_bytes(b"\1\1\1")
    BusyFile(path).close()
    assert path.read_bytes() == b"\0"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"kept")
    (tmp_path / "busy").symlink_to(tmp_path / "other")
    with pytest.raises(OSError):
        BusyFile(tmp_path / "busy")
    assert (tmp_path / "other").read_bytes() == b"kept"
