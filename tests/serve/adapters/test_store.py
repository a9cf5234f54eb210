"""The store: versions are immutable, the alias moves, names stay names, and two writers never share a number."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tunechat.serve.adapters.adapter import read_adapter
from tunechat.serve.adapters.digest import digest_of
from tunechat.serve.adapters.staging import CARD, MAX_CARD, Intake
from tunechat.serve.adapters.store import AdapterStore
from tunechat.serve.contract.adapters import AdapterOrigin
from tunechat.serve.contract.base import BaseManifest
from tunechat.serve.contract.errors import (
    BaseModelMismatch,
    Conflict,
    InvalidAdapter,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    TunechatError,
    Unavailable,
    UnsupportedFormat,
)

from .conftest import CONFIG, WEIGHTS, edit_config, scaled

MANIFEST = "manifest.json"


def three(store: AdapterStore, plain: Path, base: BaseManifest, tmp_path: Path) -> None:
    for alpha in (1, 2, 3):
        store.publish("support", scaled(plain, alpha, tmp_path / str(alpha)), Intake(base))


def tree(root: Path) -> dict[str, bytes]:
    files = (path for path in root.rglob("*") if path.is_file() and ".locks" not in path.parts)
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def test_a_version_is_a_peft_folder_with_a_manifest(store: AdapterStore, plain: Path, base: BaseManifest) -> None:
    version = store.publish("support", plain, Intake(base))
    folder = store.folder(version)
    assert sorted(os.listdir(folder)) == [CARD, CONFIG, WEIGHTS, MANIFEST]
    assert all((folder / name).read_bytes() == (plain / name).read_bytes() for name in (CARD, CONFIG, WEIGHTS))
    adapter = read_adapter(folder, base.linears)
    assert version.digest == digest_of(adapter)
    assert (version.name, version.number, version.ref.id) == ("support", 1, "support@1")
    assert (version.variant, version.rank, version.alpha, version.modules) == ("lora", 4, 8.0, 4)
    assert (version.targets, version.parameters) == (("q_proj", "v_proj"), adapter.parameters)
    assert version.size == sum((plain / name).stat().st_size for name in (CARD, CONFIG, WEIGHTS)) > version.bytes
    assert store.show("support") == store.show("support@1") == store.verify("support") == version


def test_peft_loads_a_stored_version(store: AdapterStore, plain: Path, base: BaseManifest, tiny_folder: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = store.folder(store.publish("support", plain, Intake(base)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), str(folder))
    assert model.peft_config["default"].r == 4


def test_the_same_content_is_the_same_version(
    store: AdapterStore, plain: Path, base: BaseManifest, tmp_path: Path
) -> None:
    three(store, plain, base, tmp_path)
    edit_config(tmp_path / "1", base_model_name_or_path="said/otherwise")
    assert store.publish("support", tmp_path / "1", Intake(base), activate=False).number == 1
    assert store.show("support").number == 3
    assert store.publish("support", tmp_path / "1", Intake(base)).number == 1
    assert store.show("support").number == 1
    assert store.rollback("support").number == 3
    assert store.publish("other", tmp_path / "1", Intake(base)).ref.id == "other@1"


def test_a_damaged_version_is_not_taken_for_the_same(store: AdapterStore, plain: Path, base: BaseManifest) -> None:
    weights = store.folder(store.publish("support", plain, Intake(base))) / WEIGHTS
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(InvalidAdapter, match=WEIGHTS):
        store.verify("support")
    assert store.publish("support", plain, Intake(base)).number == 2
    assert store.verify("support").number == 2


def test_rollback_and_activate(store: AdapterStore, plain: Path, base: BaseManifest, tmp_path: Path) -> None:
    three(store, plain, base, tmp_path)
    assert [store.rollback("support").number for _ in range(2)] == [2, 1]
    with pytest.raises(Conflict):
        store.rollback("support")
    assert store.activate("support@3").number == 3 == store.show("support").number
    assert store.rollback("support").number == 1


def test_rollback_passes_over_what_is_lost(
    store: AdapterStore, plain: Path, base: BaseManifest, tmp_path: Path
) -> None:
    three(store, plain, base, tmp_path)
    shutil.rmtree(store.root / "support" / "2")
    assert store.rollback("support").number == 1
    assert store.show("support").number == 1


def test_opens_for_the_base_that_serves(store: AdapterStore, plain: Path, base: BaseManifest) -> None:
    known = AdapterOrigin(source_fingerprint=base.source_fingerprint)
    version = store.publish("support", plain, Intake(base, origin=known))
    adapter = store.open(version, base)
    assert digest_of(adapter) == version.digest
    with pytest.raises(BaseModelMismatch):
        store.open(version, msgspec.structs.replace(base, source_fingerprint="other"))
    with pytest.raises(InvalidAdapter, match="no linear module"):
        store.open(version, msgspec.structs.replace(base, linears={}))
    (store.folder(version) / CONFIG).chmod(0o644)
    edit_config(store.folder(version), use_rslora=True)
    with pytest.raises(InvalidAdapter, match="changed on disk"):
        store.open(version, base)


def test_a_damaged_alias_hides_no_other_name(store: AdapterStore, plain: Path, base: BaseManifest) -> None:
    for name in ("good", "damaged"):
        store.publish(name, plain, Intake(base))
    (store.root / "damaged" / "alias.json").write_text("{")
    assert [(stored.name, stored.current) for stored in store.all()] == [("damaged", None), ("good", 1)]
    with pytest.raises(TunechatError, match="Remove it"):
        store.show("damaged")
    (store.root / "damaged" / "alias.json").unlink()
    assert store.publish("damaged", plain, Intake(base)).number == 1


def test_remove_and_pin(store: AdapterStore, plain: Path, base: BaseManifest, tmp_path: Path) -> None:
    three(store, plain, base, tmp_path)
    store.pin("support@2")
    with pytest.raises(Conflict, match="pinned"):
        store.remove("support@2")
    with pytest.raises(Conflict, match="pinned"):
        store.remove("support")
    with pytest.raises(Conflict, match="current"):
        store.remove("support@3")
    store.pin("support@2", False)
    assert [version.number for version in store.remove("support@2")] == [2]
    with pytest.raises(ModelNotFound):
        store.show("support@2")
    assert store.rollback("support").number == 1
    assert [version.number for version in store.remove("support")] == [1, 3]
    assert store.all() == ()
    assert store.publish("support", plain, Intake(base)).number == 4


def test_no_number_is_given_twice(store: AdapterStore, plain: Path, own: Path, base: BaseManifest) -> None:
    store.publish("support", plain, Intake(base))
    edit_config(own, lora_alpha=3)
    assert store.publish("support", own, Intake(base), activate=False).number == 2
    store.remove("support@2")
    assert store.publish("support", own, Intake(base), activate=False).number == 3


def test_lists(store: AdapterStore, plain: Path, base: BaseManifest, tmp_path: Path) -> None:
    assert store.all() == ()
    three(store, plain, base, tmp_path)
    store.publish("a.b-c", plain, Intake(base), activate=False)
    store.pin("support@1")
    first, second = store.all()
    assert (first.name, first.current, [v.number for v in first.versions]) == ("a.b-c", None, [1])
    assert (second.name, second.current, second.pinned) == ("support", 3, frozenset({1}))
    with pytest.raises(ModelNotFound, match="choose one of 1"):
        store.show("a.b-c")


@pytest.mark.parametrize("call", ["show", "verify", "activate", "rollback", "pin", "remove", "of"])
@pytest.mark.parametrize("name", ["../x", "/etc", "a/b", ".", "", "a\0b", "a" * 300, "аdmin"])
def test_names_that_are_paths_open_nothing(store: AdapterStore, call: str, name: str) -> None:
    store.root.mkdir()
    before = os.listdir(store.root)
    with pytest.raises(InvalidRequest):
        getattr(store, call)(name)
    assert os.listdir(store.root) == before


@pytest.mark.parametrize("call", ["show", "verify", "activate", "rollback", "pin", "remove"])
def test_what_is_not_there(store: AdapterStore, call: str) -> None:
    with pytest.raises(ModelNotFound):
        getattr(store, call)("support")
    assert not store.root.exists()


def test_links_in_the_store_are_not_followed(
    store: AdapterStore, plain: Path, base: BaseManifest, tmp_path: Path
) -> None:
    store.publish("support", plain, Intake(base))
    shutil.copytree(store.root / "support", tmp_path / "outside")
    (store.root / "evil").symlink_to(tmp_path / "outside")
    (store.root / "support" / "2").symlink_to(tmp_path / "outside" / "1")
    assert [stored.name for stored in store.all()] == ["support"]
    assert [version.number for version in store.of("support").versions] == [1]
    for call in (lambda: store.show("evil"), lambda: store.publish("evil", plain, Intake(base))):
        with pytest.raises(NotFound):
            call()


def test_a_refused_adapter_leaves_nothing(store: AdapterStore, plain: Path, own: Path, base: BaseManifest) -> None:
    store.publish("support", plain, Intake(base))
    before = tree(store.root)
    edit_config(own, r=5)
    for name in ("support", "new"):
        with pytest.raises(InvalidAdapter):
            store.publish(name, own, Intake(base))
    assert tree(store.root) == before and not (store.root / "new").exists()


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_links_and_pipes_in_a_folder_are_refused(
    store: AdapterStore, own: Path, base: BaseManifest, tmp_path: Path, name: str
) -> None:
    (own / name).rename(tmp_path / name)
    (own / name).symlink_to(tmp_path / name)
    with pytest.raises(UnsupportedFormat, match="link"):
        store.publish("support", own, Intake(base))
    (own / name).unlink()
    os.mkfifo(own / name)
    with pytest.raises(UnsupportedFormat):
        store.publish("support", own, Intake(base))


def test_a_snapshot_of_a_hub_cache_is_read(
    store: AdapterStore, plain: Path, base: BaseManifest, tmp_path: Path
) -> None:
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name in (CONFIG, WEIGHTS):
        shutil.copy(plain / name, blobs / name)
        (snapshot / name).symlink_to(Path("..", "..", "blobs", name))
    assert store.publish("support", snapshot, Intake(base)).number == 1


def test_only_pickles_are_refused(store: AdapterStore, own: Path, base: BaseManifest) -> None:
    (own / WEIGHTS).rename(own / "adapter_model.bin")
    with pytest.raises(UnsupportedFormat, match="can run code"):
        store.publish("support", own, Intake(base))


def test_a_model_card_that_is_no_small_file_is_left_out(own: Path, store: AdapterStore, base: BaseManifest) -> None:
    card = own / CARD
    for content in (b"x" * (MAX_CARD + 1), None, b"\xff small"):
        card.unlink()
        if content is None:
            card.symlink_to(__file__)
        else:
            card.write_bytes(content)
        version = store.publish("support", own, Intake(base))
        assert (CARD in version.files) == (content == b"\xff small")
        store.remove("support")


def test_a_card_that_was_changed_shows(own: Path, store: AdapterStore, base: BaseManifest) -> None:
    version = store.publish("support", own, Intake(base))
    (store.folder(version) / CARD).unlink()
    with pytest.raises(InvalidAdapter, match=CARD):
        store.verify("support")


def test_nothing_but_an_adapters_own_files_is_opened(own: Path, store: AdapterStore, base: BaseManifest) -> None:
    """An audit hook sees every file that is opened; a name in the config is not one of them."""
    edit_config(own, base_model_name_or_path=str(own / "secret"))
    for name in ("secret", "adapter_model.bin", "pickle.pt", "README.md"):
        (own / name).write_bytes(b"x")
    opened: list[str] = []
    listening = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if listening and event == "open" and str(arguments[0]).startswith(str(own)):
            opened.append(Path(str(arguments[0])).name)

    sys.addaudithook(hook)
    try:
        store.publish("support", own, Intake(base))
    finally:
        listening = False
    assert sorted(set(opened)) == [CARD, CONFIG, WEIGHTS]


def test_origin_and_warnings_are_kept(store: AdapterStore, plain: Path, own: Path, base: BaseManifest) -> None:
    (warning,) = store.publish("unknown", plain, Intake(base)).warnings
    assert "cannot be checked" in warning
    known = AdapterOrigin(
        source_fingerprint=base.source_fingerprint,
        weights_fingerprint=base.weights_fingerprint,
        parent="p",
        metrics={"loss": 1.0},
    )
    version = store.publish("known", plain, Intake(base, origin=known))
    assert version.warnings == () and version.metrics == {"loss": 1.0} and version.parent == "p"
    again = store.publish("exported", store.folder(version), Intake(base))
    assert again.warnings == () and again.source_fingerprint == base.source_fingerprint and again.name == "exported"
    (own / MANIFEST).write_text(json.dumps({"source_fingerprint": "another"}))
    with pytest.raises(BaseModelMismatch):
        store.publish("foreign", own, Intake(base))


def test_a_folder_that_changes_while_it_is_read(store: AdapterStore, plain: Path, base: BaseManifest) -> None:
    with pytest.raises(Conflict):
        store.publish("support", plain, Intake(base, is_settled=lambda: False))
    assert store.all() == ()


def test_a_full_disk_is_an_error_of_ours(
    store: AdapterStore, plain: Path, base: BaseManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable, match="No space left") as caught:
        store.publish("support", plain, Intake(base))
    assert caught.value.code == "store_failed"
    assert tree(store.root) == {}


WRITER = """
import sys
from pathlib import Path
import msgspec
from tunechat.serve.adapters.staging import CARD, MAX_CARD, Intake
from tunechat.serve.adapters.store import AdapterStore
from tunechat.serve.contract.base import BaseManifest
base = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=BaseManifest)
sys.stdin.readline()
for folder in sys.argv[3:]:
    version = AdapterStore(Path(sys.argv[2])).publish("support", Path(folder), Intake(base))
    print(version.number, version.digest, flush=True)
"""


def test_writers_at_once_get_numbers_of_their_own(
    store: AdapterStore, plain: Path, base: BaseManifest, tmp_path: Path
) -> None:
    folders = [scaled(plain, alpha, tmp_path / str(alpha)) for alpha in range(1, 9)]
    (tmp_path / "base.json").write_bytes(msgspec.json.encode(base))
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, tmp_path / "base.json", store.root, *mine],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for mine in (folders[:5], [folders[0], *folders[5:]])
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    lines = [line.split() for writer in writers for line in writer.communicate(timeout=60)[0].splitlines()]
    assert len(lines) == 9 and lines[0] == lines[5]
    assert sorted({int(number) for number, _ in lines}) == list(range(1, 9))
    assert len({digest for _, digest in lines}) == 8
    assert [version.number for version in store.of("support").versions] == list(range(1, 9))
