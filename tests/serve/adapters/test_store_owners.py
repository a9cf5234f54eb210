"""Whose a stored name is, and labels: other names of versions, by which a publication can be repeated."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunechat.serve.adapters.staging import Intake
from tunechat.serve.adapters.store import UNKNOWN_OWNER, AdapterStore
from tunechat.serve.contract.base import BaseManifest
from tunechat.serve.contract.errors import NameTaken, TunechatError

from .conftest import CONFIG, scaled


def test_a_name_is_whose_it_was_first(store: AdapterStore, own: Path, base: BaseManifest) -> None:
    store.publish("support", own, Intake(base), owner="a")
    assert store.publish("support", own, Intake(base), owner="a").number == 1
    for other in ("b", ""):
        with pytest.raises(NameTaken, match="choose another"):
            store.publish("support", own, Intake(base), owner=other)
    store.publish("shared", own, Intake(base))
    with pytest.raises(NameTaken):
        store.publish("shared", own, Intake(base), owner="a")
    assert {one.name: one.owner for one in AdapterStore(store.root).all()} == {"support": "a", "shared": ""}
    store.remove("support")
    assert store.publish("support", own, Intake(base), owner="b").number == 2
    assert store.of("support").owner == "b"


def test_a_name_whose_alias_is_damaged_is_nobodys(store: AdapterStore, own: Path, base: BaseManifest) -> None:
    version = store.publish("support", own, Intake(base), owner="a")
    (store.folder(version).parent / "alias.json").write_text("{")
    assert [one.owner for one in store.all()] == [UNKNOWN_OWNER]
    with pytest.raises(TunechatError, match="everybody's"):
        store.of("support")


def test_a_label_is_published_once(store: AdapterStore, own: Path, base: BaseManifest, tmp_path: Path) -> None:
    first = store.publish("support", own, Intake(base), label="job", activate=False)
    assert store.of("support").current is None
    other = scaled(own, 99, tmp_path / "other")
    assert store.publish("support", other, Intake(base), label="job") == first
    assert store.of("support").current == 1
    # Content that is there gets the label; a label may be one of several.
    assert store.publish("support", own, Intake(base), label="again") == first
    second = store.publish("support", other, Intake(base), label="next")
    assert AdapterStore(store.root).of("support").labels == {"job": 1, "again": 1, "next": 2}
    store.remove("support@1")
    assert store.of("support").labels == {"next": 2}
    # A version that was damaged does not count as published.
    path = store.folder(second) / CONFIG
    path.chmod(0o644)
    path.write_text("{}")
    assert store.publish("support", other, Intake(base), label="next").number == 3
    assert store.of("support").labels == {"next": 3}
