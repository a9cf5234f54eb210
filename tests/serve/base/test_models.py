"""The list of prepared models, and removing from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunechat.serve.base.entry import MANIFEST, BaseEntry
from tunechat.serve.base.models import list_models, remove_model
from tunechat.serve.base.prepare import prepare
from tunechat.serve.contract.errors import ModelNotFound
from tunechat.tests.tiny_models import make_tiny

from .conftest import quiet


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for name, quant in (("one", "int4"), ("one", "none"), ("two", "int4")):
        if not (tmp_path / name).exists():
            make_tiny(tmp_path / name, "llama")
        prepare(str(tmp_path / name), quant=quant, home=tmp_path / "home", report=quiet)
    return tmp_path / "home"


def test_lists_what_is_there(home: Path) -> None:
    models = list_models(home)
    assert sorted((m.manifest.name, m.manifest.quant) for m in models) == [
        ("one", "int4"),
        ("one", "none"),
        ("two", "int4"),
    ]
    for model in models:
        assert not model.path.is_absolute()
        assert model.nbytes == sum(file.stat().st_size for file in (home / model.path).iterdir())


def test_nothing_is_no_error(tmp_path: Path) -> None:
    assert list_models(tmp_path) == []


def test_half_entries_and_links_are_left_out(home: Path) -> None:
    models = list_models(home)
    (home / models[0].path / MANIFEST).unlink()
    (home / "models" / "link").symlink_to(home / models[1].path)
    assert list_models(home) == models[1:]


def test_removes_by_name_and_codec(home: Path) -> None:
    entry = BaseEntry.open(home / next(m.path for m in list_models(home) if m.manifest.quant == "none"))
    assert [m.manifest.quant for m in remove_model(home, "one", "none")] == ["none"]
    assert entry.weight("lm_head").dequantize().isfinite().all()
    remove_model(home, "one")
    (left,) = list_models(home)
    remove_model(home, left.path.name)
    assert list_models(home) == []
    assert [path.name for path in (home / "models").iterdir()] == [".locks"]


@pytest.mark.parametrize("name", ["three", "..", "../..", "/", "", "."])
def test_names_are_not_paths(home: Path, name: str) -> None:
    with pytest.raises(ModelNotFound):
        remove_model(home, name)
    assert len(list_models(home)) == 3
