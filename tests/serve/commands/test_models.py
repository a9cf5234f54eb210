"""`tunechat models`: what is prepared, and removing it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tunechat.serve.contract.base import MANIFEST_FORMAT, BaseManifest

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
    assert {(model["name"], model["quant"]) for model in listed} == {("tiny", "int4"), ("tiny", "nf4")}
    (first,) = [model for model in listed if model["quant"] == "int4"]
    assert first["path"] == str(folder)
    assert first["bytes"] > 2 << 20
    assert "files" not in first
    table = tunechat("models").out
    assert "2.0 MiB" in table and "2023-11-14" in table


@pytest.mark.parametrize("name", ["nothing", "", ".", "..", "../home", "ti"])
def test_remove_of_what_is_no_entry_removes_nothing(tunechat: Tunechat, home: Path, name: str) -> None:
    folder = make_entry(home, "tiny", "int4")
    done = tunechat("models", "remove", name)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: no prepared model is called") and done.err.count("\n") == 1
    assert folder.exists()


def test_remove_reports_what_went(tunechat: Tunechat, home: Path) -> None:
    folder = make_entry(home, "tiny", "int4")
    assert tunechat("models", "remove", "tiny").out.startswith(f"removed {folder.name} (")
    assert not folder.exists()


def test_pull_of_a_prepared_model_only_says_where_it_is(
    tunechat: Tunechat, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_entry(home, "tiny", "int4")
    asked = []

    def prepare(model: str, **rest: object) -> Path:
        asked.append((model, rest["quant"], rest["home"]))
        return folder

    monkeypatch.setattr("tunechat.serve.base.prepare.prepare", prepare)
    done = tunechat("pull", "org/tiny", "--quant", "int4")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("tiny (int4, 1.") and done.out.endswith(f" KiB) is ready in {folder}\n")
    assert json.loads(tunechat("pull", "org/tiny", "--json").out)["path"] == str(folder)
    assert asked == [("org/tiny", "int4", home), ("org/tiny", None, home)]
