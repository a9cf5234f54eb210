"""Zips of adapters from strangers: only the adapter's own files are taken, and only so much of them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.commands.adapter_archive import pack, unpack
from tunechat.serve.contract.errors import UnsupportedFormat

CONFIG, WEIGHTS, MANIFEST = "adapter_config.json", "adapter_model.safetensors", "manifest.json"


def zipped(path: Path, **content: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def taken(source: Path, folder: Path, limit: int = 1000) -> dict[str, bytes]:
    folder.mkdir()
    unpack(source, folder, limit)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_packing_and_unpacking_give_the_same_files(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    content = {CONFIG: b"{}", WEIGHTS: b"w" * 500, MANIFEST: b"{}"}
    for name, data in content.items():
        (source / name).write_bytes(data)
    (source / "optimizer.pt").write_bytes(b"not ours")
    pack(source, tmp_path / "a.zip")
    assert taken(tmp_path / "a.zip", tmp_path / "out") == content


@pytest.mark.parametrize("home", ["", "checkpoint-7/", "a/b/"])
def test_adapter_may_lie_in_a_folder(tmp_path: Path, home: str) -> None:
    content = {f"{home}{CONFIG}": b"{}", f"{home}{WEIGHTS}": b"w", f"{home}README.md": b"x", "x/run.py": b"evil"}
    assert taken(zipped(tmp_path / "a.zip", **content), tmp_path / "out") == {CONFIG: b"{}", WEIGHTS: b"w"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({WEIGHTS: b"w"}, "holds no adapter_config.json"),
        ({f"a/{CONFIG}": b"{}", f"b/{CONFIG}": b"{}"}, "holds 2 adapter_config.json"),
        ({CONFIG: b"{}", WEIGHTS: b"w" * 1001}, "larger than 1000 bytes"),
        ({CONFIG: b" " * (1 << 21)}, "larger than 1048576 bytes"),
        ({f"{number}": b"" for number in range(5000)}, "more than 4096 files"),
    ],
)
def test_other_zips_are_refused(tmp_path: Path, content: dict[str, bytes], said: str) -> None:
    with pytest.raises(UnsupportedFormat, match=said):
        taken(zipped(tmp_path / "a.zip", **content), tmp_path / "out")


def test_names_that_climb_write_nothing_outside(tmp_path: Path) -> None:
    content = {f"../../{CONFIG}": b"{}", f"../../{WEIGHTS}": b"w"}
    assert set(taken(zipped(tmp_path / "a.zip", **content), tmp_path / "out")) == {CONFIG, WEIGHTS}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "out"]


def test_same_file_twice_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for _ in range(2):
            archive.writestr(CONFIG, b"{}")
    with pytest.raises(UnsupportedFormat, match="twice"):
        taken(tmp_path / "a.zip", tmp_path / "out")


@given(st.data())
def test_damaged_zips_raise_nothing_else(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(CONFIG, b"{}")
        archive.writestr(WEIGHTS, bytes(range(256)))
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "a.zip").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        taken(folder / "a.zip", folder / "out")
    except UnsupportedFormat as error:
        assert "a.zip" in str(error) or "in the zip" in str(error)
