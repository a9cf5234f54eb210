"""A zip of an adapter goes in and out; other files are told apart from it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tunechat.serve.commands.adapter_archive import pack, unpacked
from tunechat.serve.contract.errors import NotFound, TunechatError, UnsupportedFormat

CONTENT = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"w" * 500, "manifest.json": b"{}"}


def test_packing_and_unpacking_give_the_same_files(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name, data in CONTENT.items():
        (source / name).write_bytes(data)
    (source / "optimizer.pt").write_bytes(b"not ours")
    pack(source, tmp_path / "a.zip")
    with unpacked(tmp_path / "a.zip", 10_000) as folder:
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT
    assert not folder.exists()
    with unpacked(source, 10_000) as folder:
        assert folder == source
    with pytest.raises(TunechatError, match="more than 400 bytes"), unpacked(tmp_path / "a.zip", 400):
        pass


def test_what_is_neither_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x" * 100)
    with pytest.raises(UnsupportedFormat, match=r"notes\.txt is neither a folder nor a zip"):
        unpacked(tmp_path / "notes.txt", 1000).__enter__()
    with pytest.raises(NotFound, match="there is no"):
        unpacked(tmp_path / "nothing", 1000).__enter__()


def test_names_that_climb_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../adapter_config.json", b"{}")
    with pytest.raises(TunechatError, match="not allowed"):
        unpacked(tmp_path / "a.zip", 1000).__enter__()
