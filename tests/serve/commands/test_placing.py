"""What a command writes is there whole or not at all, and never over what somebody else wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunechat.serve.commands.placing import placed_file, placed_folder
from tunechat.serve.contract.errors import Conflict


class Stopped(Exception):
    """Stands for whatever ends the work early."""


def fill(target: Path, text: str, *, force: bool = False, fail: bool = False) -> None:
    with placed_folder(target, "mark", force=force) as staged:
        (staged / "mark").write_text(text)
        assert not (target / "mark").exists() or (target / "mark").read_text() != text
        if fail:
            raise Stopped


def write(target: Path, text: str, *, force: bool = False, fail: bool = False) -> None:
    with placed_file(target, force=force) as staged:
        staged.write_text(text)
        if fail:
            raise Stopped


@pytest.mark.parametrize("make", [fill, write])
def test_failure_leaves_nothing_and_takes_nothing(tmp_path: Path, make: type[None]) -> None:
    with pytest.raises(Stopped):
        make(tmp_path / "x", "new", fail=True)  # type: ignore[call-arg]
    assert list(tmp_path.iterdir()) == []
    make(tmp_path / "x", "old")  # type: ignore[call-arg]
    with pytest.raises(Stopped):
        make(tmp_path / "x", "new", force=True, fail=True)  # type: ignore[call-arg]
    kept = tmp_path / "x"
    assert (kept if kept.is_file() else kept / "mark").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_folder_is_replaced_only_when_told_and_only_its_own_kind(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.mkdir()
    fill(target, "first")  # an empty folder holds nothing that could be lost
    with pytest.raises(Conflict, match="--force"):
        fill(target, "second")
    fill(target, "second", force=True)
    assert (target / "mark").read_text() == "second"
    (target / "mark").unlink()
    (target / "thesis").write_text("x")
    with pytest.raises(Conflict, match="other things"):
        fill(target, "third", force=True)
    with pytest.raises(Conflict, match="is a file"):
        fill(target / "thesis", "third", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_file_is_replaced_only_when_told(tmp_path: Path) -> None:
    write(tmp_path / "x", "first")
    with pytest.raises(Conflict, match="--force"):
        write(tmp_path / "x", "second")
    write(tmp_path / "x", "second", force=True)
    assert (tmp_path / "x").read_text() == "second"
    with pytest.raises(Conflict, match="is a folder"):
        write(tmp_path, "third", force=True)


def test_whoever_was_quicker_is_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "x"
    with pytest.raises(Conflict), placed_file(target, force=False) as staged:
        staged.write_text("mine")
        target.write_text("theirs")
    assert target.read_text() == "theirs"
    target.unlink()
    with pytest.raises(OSError), placed_folder(target, "mark", force=False) as staged:
        (staged / "mark").write_text("mine")
        target.mkdir()
        (target / "mark").write_text("theirs")
    assert (target / "mark").read_text() == "theirs"
