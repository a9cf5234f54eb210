"""Where the unquantised weights of a prepared model are looked for, and when they are not used."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from safetensors.torch import load_file, save_file

from tunechat.serve.base.entry import BaseEntry
from tunechat.serve.base.full_weights import full_weights
from tunechat.serve.base.prepare import prepare
from tunechat.serve.contract.errors import BaseModelMismatch, ModelError
from tunechat.tests.tiny_models import make_tiny

from .conftest import quiet
from .gguf_files import write_gguf


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_tiny(tmp_path / "tiny", "llama", tie_word_embeddings=False)


def entry_of(source: Path, home: Path, quant: str = "int4") -> BaseEntry:
    return BaseEntry.open(prepare(str(source), quant=quant, home=home, report=quiet))


def test_folder_that_is_unchanged_is_used(source: Path, tmp_path: Path) -> None:
    weights = full_weights(entry_of(source, tmp_path), tmp_path, quiet)
    assert (weights.is_dequantised, weights.origin) == (False, str(source))
    expected = load_file(source / "model.safetensors")
    assert all(torch.equal(weights.tensors.tensor(name), expected[name]) for name in expected)


@pytest.mark.parametrize("change", ["gone", "changed", "broken"])
def test_folder_that_is_not_the_same_is_not_used(source: Path, tmp_path: Path, change: str) -> None:
    entry = entry_of(source, tmp_path)
    if change == "gone":
        shutil.rmtree(source)
    elif change == "changed":
        tensors = load_file(source / "model.safetensors")
        tensors["model.norm.weight"] += 1
        save_file(tensors, source / "model.safetensors")
    else:
        (source / "model.safetensors").write_bytes(b"x")
    weights = full_weights(entry, tmp_path, quiet)
    said = {"gone": "is not on this machine", "changed": "was changed", "broken": "cannot be read"}[change]
    assert weights.is_dequantised and said in str(weights.reason)
    assert weights.origin == f"the prepared model {entry.folder.name}"


def test_unquantised_entry_needs_no_source(source: Path, tmp_path: Path) -> None:
    entry = entry_of(source, tmp_path, "none")
    expected = load_file(source / "model.safetensors")
    shutil.rmtree(source)
    weights = full_weights(entry, tmp_path, quiet)
    assert not weights.is_dequantised
    assert all(torch.equal(weights.tensors.tensor(name), expected[name]) for name in expected)


def test_hub_cache_is_searched_for_the_right_state(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = entry_of(source, tmp_path)
    entry.manifest = msgspec.structs.replace(entry.manifest, source="org/tiny")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    assert "not on this machine" in str(full_weights(entry, tmp_path, quiet).reason)
    snapshots = tmp_path / "cache" / "models--org--tiny" / "snapshots"
    make_tiny(snapshots / "new", "llama", tie_word_embeddings=False, seed=7)
    assert "was changed" in str(full_weights(entry, tmp_path, quiet).reason)
    shutil.copytree(source, snapshots / "old")
    weights = full_weights(entry, tmp_path, quiet)
    assert (weights.is_dequantised, weights.origin) == (False, str(snapshots / "old"))


@pytest.mark.parametrize(("kind", "reason"), [("F32", None), ("F16", None), ("Q4_1", "is quantised (Q4_1)")])
def test_gguf_counts_when_its_blocks_are_not_quantised(
    source: Path, tmp_path: Path, kind: str, reason: str | None
) -> None:
    config = json.loads((source / "config.json").read_text())
    tensors = {name: np.asarray(tensor) for name, tensor in load_file(source / "model.safetensors").items()}
    path = write_gguf(tmp_path / "model.gguf", "llama", config, tensors, GGMLQuantizationType[kind])
    weights = full_weights(entry_of(path, tmp_path), tmp_path, quiet)
    assert weights.is_dequantised == (reason is not None)
    assert (reason or "") in (weights.reason or "")
    chosen = entry_of(path, tmp_path, "none")
    assert full_weights(chosen, tmp_path, quiet).is_dequantised == (reason is not None)


def test_default_model_says_why_it_is_dequantised(default_home: Path, default_entry: Path) -> None:
    weights = full_weights(BaseEntry.open(default_entry), default_home, quiet)
    assert weights.reason == "its source itself is quantised"


def test_chosen_folder_is_checked(source: Path, tmp_path: Path) -> None:
    entry = entry_of(source, tmp_path)
    moved = source.rename(tmp_path / "moved")
    assert not full_weights(entry, tmp_path, quiet, moved).is_dequantised
    with pytest.raises(BaseModelMismatch, match="holds other weights"):
        full_weights(entry, tmp_path, quiet, make_tiny(tmp_path / "other", "llama", seed=9))
    with pytest.raises(ModelError, match="there is no"):
        full_weights(entry, tmp_path, quiet, tmp_path / "nothing")
    assert hashlib.sha256((moved / "model.safetensors").read_bytes()).hexdigest() == entry.manifest.source_fingerprint
