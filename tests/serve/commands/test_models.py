"""`tunechat models`: what is prepared, and removing it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tunechat.serve.commands.entries import list_entries, read_entry, remove_entries
from tunechat.serve.contract.base import MANIFEST_FORMAT, BaseManifest
from tunechat.serve.contract.errors import ModelError, ModelNotFound

from .conftest import Done

Tunechat = Callable[..., Done]


def make_entry(home: Path, name: str, quant: str, size: int = 1000) -> Path:
    folder = home / "models" / f"{name}-{quant}-0123456789ab"
    folder.mkdir(parents=True)
    manifest = BaseManifest(
        format=MANIFEST_FORMAT,
        name=name,
        source=name,
        source_fingerprint="s",
        weights_fingerprint="w",
        quant=quant,
        layout="compact",
        architecture="LlamaForCausalLM",
        context_length=2048,
        vocab_size=10,
        eos_token_ids=(2,),
        parameters=1,
        weight_bytes=size,
        template_hash="",
        files={"weights.safetensors": "0"},
        created=1_700_000_000,
    )
    (folder / "weights.safetensors").write_bytes(b"\0" * size)
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    return folder


def test_nothing_yet_says_how_to_begin(tunechat: Tunechat) -> None:
    assert tunechat("models") == Done(0, "", "no models yet; `tunechat pull` fetches the default one\n")
    assert json.loads(tunechat("models", "--json").out) == []


def test_lists_entries_with_size_and_form(tunechat: Tunechat, home: Path) -> None:
    folder = make_entry(home, "tiny", "int4", size=2 << 20)
    make_entry(home, "tiny", "nf4")
    (home / "models" / ".downloads").mkdir()
    (home / "models" / ".tmp-x").mkdir()
    listed = json.loads(tunechat("models", "--json").out)
    assert [(model["name"], model["quant"]) for model in listed] == [("tiny", "int4"), ("tiny", "nf4")]
    assert listed[0]["path"] == str(folder)
    assert listed[0]["bytes"] > 2 << 20
    assert "files" not in listed[0]
    table = tunechat("models").out
    assert "2.0 MiB" in table and "2023-11-14" in table


def test_broken_entry_is_left_out_and_told(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_entry(home, "tiny", "int4")
    broken = make_entry(home, "broken", "int4")
    (broken / "manifest.json").write_text("{")
    assert [entry.manifest.name for entry in list_entries(home)] == ["tiny"]
    assert broken.name in caplog.text
    with pytest.raises(ModelError, match="is no prepared model"):
        read_entry(broken)


def test_remove_takes_one_form_or_all(home: Path) -> None:
    first, second = make_entry(home, "tiny", "int4"), make_entry(home, "tiny", "nf4")
    other = make_entry(home, "other", "int4")
    assert [entry.path for entry in remove_entries(home, first.name)] == [first]
    assert (first.exists(), second.exists()) == (False, True)
    make_entry(home, "tiny", "int4")
    assert len(remove_entries(home, "tiny")) == 2
    assert [path.name for path in (home / "models").iterdir()] == [other.name]


@pytest.mark.parametrize("name", ["nothing", "", ".", "..", "../home", "ti"])
def test_remove_of_what_is_no_entry_removes_nothing(tunechat: Tunechat, home: Path, name: str) -> None:
    folder = make_entry(home, "tiny", "int4")
    with pytest.raises(ModelNotFound):
        remove_entries(home, name)
    assert folder.exists()
    done = tunechat("models", "remove", name)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: no prepared model is called")


def test_remove_reports_what_went(tunechat: Tunechat, home: Path) -> None:
    folder = make_entry(home, "tiny", "int4")
    assert tunechat("models", "remove", "tiny").out.startswith(f"removed {folder.name} (")
