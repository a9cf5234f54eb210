"""What is read of a store at once, and how a publication is undone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunechat.serve.adapters.staging import Intake
from tunechat.serve.adapters.store import AdapterStore
from tunechat.serve.api.enrolment import read_stored, withdraw
from tunechat.tests.serve.api.adapter_files import write_adapter
from tunechat.tests.serve.api.harness import base_manifest

BASE = base_manifest()


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "store")


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    return [write_adapter(tmp_path / f"source{seed}", seed) for seed in range(3)]


def test_the_current_version_comes_last(store: AdapterStore, sources: list[Path]) -> None:
    for source in sources:
        store.publish("a", source, Intake(BASE))
    store.activate("a@2")
    store.pin("a@3")
    found = read_stored(store, BASE)
    assert [(one.manifest.number, one.is_current, one.is_pinned) for one in found] == [
        (1, False, False), (3, False, True), (2, True, False),
    ]  # fmt: skip
    assert all((one.folder / "manifest.json").is_file() and one.problem is None for one in found)


def test_problems_are_told_by_version(store: AdapterStore, sources: list[Path]) -> None:
    (sources[0] / "manifest.json").write_text(json.dumps({"source_fingerprint": BASE.source_fingerprint}))
    for name, source in zip("abc", sources, strict=True):
        store.publish(name, source, Intake(BASE))
    (store.root / "b" / "1").rename(store.root / "b1")
    (store.root / "b" / "1").symlink_to(store.root / "b1")
    (store.root / "c" / "1" / "manifest.json").write_text("no JSON")
    found = {one.manifest.ref.id: one.problem for one in read_stored(store, base_manifest(source_fingerprint="0" * 64))}
    assert set(found) == {"a@1"}
    assert found["a@1"] is not None and found["a@1"].code == "base_model_mismatch"


def test_what_a_dead_writer_left_is_swept(store: AdapterStore, sources: list[Path]) -> None:
    store.publish("a", sources[0], Intake(BASE))
    (store.root / ".tmp-a-0123").mkdir()
    read_stored(store, BASE)
    assert not (store.root / ".tmp-a-0123").exists()


def test_an_empty_store_is_not_made(store: AdapterStore) -> None:
    assert read_stored(store, BASE) == []
    assert not store.root.exists()


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("is_moved", [True, False])
def test_a_publication_is_undone(store: AdapterStore, sources: list[Path], is_new: bool, is_moved: bool) -> None:
    store.publish("a", sources[0], Intake(BASE))
    second = store.publish("a", sources[1], Intake(BASE), activate=is_moved)
    withdraw(store, second, 1, is_new)
    stored = store.of("a")
    assert stored.current == 1
    assert [version.number for version in stored.versions] == ([1] if is_new else [1, 2])


def test_the_first_version_of_a_name_is_undone_too(store: AdapterStore, sources: list[Path]) -> None:
    withdraw(store, store.publish("a", sources[0], Intake(BASE)), None, True)
    assert store.all() == ()


def test_what_cannot_be_undone_is_logged(
    store: AdapterStore, sources: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    manifest = store.publish("a", sources[0], Intake(BASE))
    store.pin("a@1")
    withdraw(store, manifest, None, True)
    assert "stays stored" in caplog.text
