"""Hostile archives are refused before anything is written; what is written reads back the same."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunechat.serve.adapters.staging import MAX_CARD
from tunechat.serve.api.archive import MAX_ENTRIES, InvalidArchive, extract, packed
from tunechat.serve.contract.errors import PayloadTooLarge, TunechatError, UnsupportedFormat
from tunechat.tests.serve.api.adapter_files import CONFIG, WEIGHTS, adapter_files, zipped

LIMIT = 10 << 20


def unpack(content: bytes, folder: Path, limit: int = LIMIT) -> dict[str, bytes]:
    folder.mkdir(exist_ok=True)
    (folder / "in.zip").write_bytes(content)
    target = folder / "out"
    target.mkdir()
    extract(folder / "in.zip", target, limit)
    return {path.name: path.read_bytes() for path in target.iterdir()}


def nothing_written(folder: Path) -> bool:
    return sorted(path.name for path in folder.rglob("*")) == ["in.zip", "out"]


def entry(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.external_attr = mode << 16
    return made


def with_entries(*entries: tuple[zipfile.ZipInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for made, content in entries:
            archive.writestr(made, content)
    return buffer.getvalue()


@pytest.mark.parametrize("prefix", ["", "support/", "a/b/"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_files_at_the_top_or_in_one_folder_are_taken(tmp_path: Path, prefix: str, compression: int) -> None:
    files = adapter_files()
    content = {f"{prefix}{name}": data for name, data in files.items()} | {f"{prefix}notes.txt": b"hello"}
    assert unpack(zipped(content, compression=compression), tmp_path) == files


def test_a_model_card_beside_the_adapter_is_taken(tmp_path: Path) -> None:
    files = {f"x/{name}": data for name, data in adapter_files().items()}
    cards = {"README.md": b"of the archive", "x/README.md": b"of the adapter", "y/README.md": b"of another"}
    assert unpack(zipped(files | cards), tmp_path / "1")["README.md"] == b"of the adapter"
    assert "README.md" not in unpack(zipped(files | {"x/README.md": b"x" * (MAX_CARD + 1)}), tmp_path / "2")


def bomb() -> bytes:
    return zipped({CONFIG: b"{}", WEIGHTS: b"\0" * (8 << 20)}, compression=zipfile.ZIP_DEFLATED)


def many() -> bytes:
    return zipped({f"f{index}": b"" for index in range(MAX_ENTRIES + 1)})


def huge_directory() -> bytes:
    return zipped({f"{index:03}{'x' * 500}": b"" for index in range(200)})


def lying() -> bytes:
    """Declares 20 GB in the list of entries."""
    content = bytearray(zipped({WEIGHTS: b"x" * 100}))
    at = content.rindex(b"PK\x01\x02")
    struct.pack_into("<L", content, at + 24, 0xFFFFFF00)
    return bytes(content)


def lying_about_the_count() -> bytes:
    content = bytearray(many())
    struct.pack_into("<2H", content, len(content) - 22 + 8, 1, 1)
    return bytes(content)


def zip64() -> bytes:
    content = zipped(adapter_files())
    return content[:-22] + b"PK\x06\x07" + bytes(16) + content[-22:]


def encrypted() -> bytes:
    content = bytearray(zipped({CONFIG: b"{}"}))
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def twice() -> bytes:
    with pytest.warns(UserWarning, match="Duplicate"):
        return with_entries((entry(CONFIG), b"{}"), (entry(CONFIG), b"[]"))


HOSTILE: dict[str, tuple[Callable[[], bytes], type[TunechatError]]] = {
    "bomb": (bomb, InvalidArchive),
    "many entries": (many, InvalidArchive),
    "a long list of entries": (huge_directory, InvalidArchive),
    "declares 4 GB": (lying, InvalidArchive),
    "lies about the count": (lying_about_the_count, InvalidArchive),
    "zip64": (zip64, InvalidArchive),
    "encrypted": (encrypted, InvalidArchive),
    "twice": (twice, InvalidArchive),
    "twice, by case": (lambda: zipped({"A": b"", "a": b""}), InvalidArchive),
    "parent": (lambda: zipped({"../x": b"", **adapter_files()}), InvalidArchive),
    "parent inside": (lambda: zipped({"a/../../x": b""}), InvalidArchive),
    "absolute": (lambda: zipped({"/etc/passwd": b""}), InvalidArchive),
    "backslashes": (lambda: zipped({"..\\x": b""}), InvalidArchive),
    "drive": (lambda: zipped({"C:x": b""}), InvalidArchive),
    "NUL": (lambda: zipped({CONFIG + "Xx": b"{}"}).replace(b"jsonXx", b"json\0x"), InvalidArchive),
    "line break": (lambda: zipped({"a\nb": b""}), InvalidArchive),
    "link": (lambda: with_entries((entry(WEIGHTS, stat.S_IFLNK | 0o777), b"/etc/passwd")), InvalidArchive),
    "device": (lambda: with_entries((entry("x", stat.S_IFCHR | 0o644), b"")), InvalidArchive),
    "two adapters": (lambda: zipped({f"a/{CONFIG}": b"{}", f"b/{CONFIG}": b"{}"}), InvalidArchive),
    "large config": (lambda: zipped({CONFIG: bytes(range(256)) * 5000}), InvalidArchive),
    "comment": (lambda: zipped(adapter_files()) + b"x", InvalidArchive),
    "empty": (lambda: b"", InvalidArchive),
    "no zip": (lambda: b"x" * 1000, InvalidArchive),
    "more than allowed": (lambda: zipped(dict.fromkeys("abc", bytes(range(256)) * 20_000)), PayloadTooLarge),
    "a pickle": (lambda: zipped({CONFIG: b"{}", "adapter_model.bin": b"x"}), UnsupportedFormat),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archives_are_refused_before_anything_is_written(tmp_path: Path, case: str) -> None:
    make, expected = HOSTILE[case]
    content = make()
    with pytest.raises(expected):
        unpack(content, tmp_path)
    assert nothing_written(tmp_path)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_archives_are_refused_or_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(zipped(adapter_files(), compression=zipfile.ZIP_DEFLATED))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    folder = tmp_path_factory.mktemp("zip")
    try:
        files = unpack(bytes(content[:cut]) if data.draw(st.booleans()) else bytes(content), folder)
    except TunechatError:
        return
    assert set(files) <= {CONFIG, WEIGHTS, "manifest.json"}


def test_what_is_packed_unpacks_in_pieces_of_bounded_size(tmp_path: Path) -> None:
    files = adapter_files() | {"manifest.json": bytes(3 << 20)}
    closed = []

    class Watched(io.BytesIO):
        def close(self) -> None:
            closed.append(self)
            super().close()

    pieces = list(packed([(name, Watched(content)) for name, content in files.items()]))
    assert len(closed) == len(files)
    assert max(map(len, pieces)) < 2 << 20
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == files


def test_a_download_that_is_broken_off_closes_its_files() -> None:
    files = [(name, io.BytesIO(content)) for name, content in adapter_files().items()]
    pieces = packed(files)
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert all(file.closed for _, file in files)
