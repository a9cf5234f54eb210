"""`tunechat adapters merge`: the merged model computes what peft computes, and says what it was made from."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tunechat.serve.adapters.adapter import read_adapter
from tunechat.serve.base.entry import BaseEntry
from tunechat.tests.adapters_by_peft import Reference, read_model

from .adapter_home import Workshop, prepared, say_trained_on
from .conftest import Done

Tunechat = Callable[..., Done]
TOKENS = [256, 257, 12, 77, 200, 5, 31, 31, 8, 140, 258]
ALL = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj"
VARIANTS: dict[str, dict[str, Any]] = {
    "lora": {"targets": ALL},
    "rslora": {"targets": ALL, "r": 9, "use_rslora": True},
    "dora": {"targets": ALL, "use_dora": True},
    "dora-rslora": {"use_dora": True, "use_rslora": True, "r": 3},
    "patterns": {
        "targets": ALL,
        "rank_pattern": {"layers.0.self_attn.q_proj": 3, "v_proj": 16},
        "alpha_pattern": {"down_proj": 24, "layers.1.self_attn.q_proj": 2},
    },
    "head": {"targets": "q_proj lm_head"},
    "head-dora": {"targets": "lm_head up_proj", "use_dora": True},
}
BASES = [("llama", False), ("qwen2", False), ("qwen2", True)]


def logits(folder: Path) -> Tensor:
    """float32 [tokens, vocabulary] of the model in `folder`, as transformers computes them."""
    with torch.inference_mode():
        result: Tensor = read_model(folder)(torch.tensor([TOKENS])).logits[0]
    return result


def merged_by_peft(base: Path, adapter: Path) -> Tensor:
    from peft import PeftModel

    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PeftModel.from_pretrained(read_model(base), adapter).merge_and_unload()
        result: Tensor = model(torch.tensor([TOKENS])).logits[0]
    return result


def merge(tunechat: Tunechat, base: Path, adapter: Path, target: Path, *more: str) -> dict[str, Any]:
    loaded = tunechat("adapters", "load", str(adapter), "--name", "support", "--model", str(base))
    assert loaded.code == 0, loaded.err
    done = tunechat("adapters", "merge", "support", str(target), "--model", str(base), "--json", *more)
    assert done.code == 0, done.err
    result: dict[str, Any] = json.loads(done.out)
    return result


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("family", "tied"), BASES)
def test_merged_model_is_what_peft_makes(
    tunechat: Tunechat, workshop: Workshop, home: Path, tmp_path: Path, family: str, tied: bool, variant: str
) -> None:
    base = workshop.base(family, tied)
    adapter = workshop.adapter(base, **VARIANTS[variant])
    prepared(base, home)
    told = merge(tunechat, base, adapter, tmp_path / "merged")
    assert (told["weights"], told["dtype"]) == ("unquantised", "float32")
    splits = tied and variant.startswith("head")
    # peft's own merge changes a shared embedding too: what its layers compute unmerged is the truth there.
    expected = Reference(base).logits(TOKENS, [(adapter, 1.0)]) if splits else merged_by_peft(base, adapter)
    assert (expected - logits(base)).abs().max() > 0.1
    torch.testing.assert_close(logits(tmp_path / "merged"), expected, atol=2e-5, rtol=1e-4)
    assert told["untied"] == (["lm_head"] if splits else [])
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["tie_word_embeddings"] is (tied and not splits)


def test_a_class_outside_the_compact_ones_gets_a_head_of_its_own(
    tunechat: Tunechat, workshop: Workshop, home: Path, tmp_path: Path
) -> None:
    base = workshop.base("gemma", True)
    config = json.loads((base / "config.json").read_text())
    config.pop("tie_word_embeddings", None)  # the class ties by itself
    (base / "config.json").write_text(json.dumps(config))
    adapter = workshop.adapter(base, targets="q_proj lm_head")
    prepared(base, home)
    told = merge(tunechat, base, adapter, tmp_path / "merged")
    expected = Reference(base).logits(TOKENS, [(adapter, 1.0)])
    torch.testing.assert_close(logits(tmp_path / "merged"), expected, atol=2e-5, rtol=1e-4)
    assert told["untied"] == ["lm_head"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_is_exact_in_float32_and_cast_once(
    tunechat: Tunechat, workshop: Workshop, home: Path, tmp_path: Path, dtype: str
) -> None:
    base = workshop.base()
    prepared(base, home)
    adapter = workshop.adapter(base, targets=ALL)
    merge(tunechat, base, adapter, tmp_path / "exact")
    told = merge(tunechat, base, adapter, tmp_path / "cast", "--dtype", dtype)
    exact, cast = (load_file(tmp_path / name / "model.safetensors") for name in ("exact", "cast"))
    kind = getattr(torch, dtype)
    assert exact.keys() == cast.keys()
    assert all(torch.equal(cast[name], exact[name].to(kind)) for name in exact)
    assert told["dtype"] == dtype
    assert told["bytes"] == sum(tensor.nbytes for tensor in cast.values())


@pytest.mark.parametrize("quant", ["int4", "nf4"])
def test_without_the_source_the_served_weights_are_dequantised(
    tunechat: Tunechat, workshop: Workshop, home: Path, tmp_path: Path, quant: str
) -> None:
    base = Path(shutil.copytree(workshop.base("qwen2", False), tmp_path / "base"))
    manifest = prepared(base, home, quant)
    folder = workshop.adapter(workshop.base("qwen2", False), targets=ALL)
    loaded = tunechat("adapters", "load", str(folder), "--name", "support", "--model", str(base))
    assert loaded.code == 0, loaded.err
    say_trained_on(home / "adapters" / "support" / "1", manifest)
    shutil.rmtree(base)
    done = tunechat("adapters", "merge", "support", str(tmp_path / "merged"), "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["weights"], told["source_fingerprint"]) == ("dequantised", manifest.source_fingerprint)
    assert any("its source is not on this machine" in note for note in told["notes"])
    assert f"made from the dequantised weights of the prepared model {told['origin'].split()[-1]}" in done.err

    entry = BaseEntry.open(home / "models" / told["origin"].split()[-1])
    adapter = read_adapter(folder, manifest.linears)
    written = load_file(tmp_path / "merged" / "model.safetensors")
    for module in adapter.modules:
        fused, first = _place(module.name, manifest.linears)
        weight = entry.weight(fused).dequantize()[first : first + module.rows]
        delta = torch.from_numpy(adapter.b(module) @ adapter.a(module)) * module.scaling
        torch.testing.assert_close(written[f"{module.name}.weight"], weight + delta, atol=1e-6, rtol=1e-5)
    bias = entry.vector("model.layers.1.self_attn.qkv_proj.bias")
    parts = [written[f"model.layers.1.self_attn.{part}_proj.bias"] for part in "qkv"]
    assert torch.equal(torch.cat(parts), bias)
    readme = (tmp_path / "merged" / "README.md").read_text()
    assert "`dequantised`" in readme and str(tmp_path) not in readme


def _place(name: str, linears: dict[str, tuple[int, int]]) -> tuple[str, int]:
    """The matrix that holds `name` in a compact entry, and its first row there."""
    stem = name.rpartition(".")[0]
    for fused, parts in {"qkv_proj": "qkv", "gate_up_proj": ("gate", "up")}.items():
        names = [f"{stem}.{one}_proj" for one in parts]
        if name in names:
            before = names[: names.index(name)]
            return f"{stem}.{fused}", sum(linears[one][0] for one in before)
    return name, 0


def test_changed_source_is_not_used(tunechat: Tunechat, workshop: Workshop, home: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(workshop.base(), tmp_path / "base"))
    manifest = prepared(base, home)
    adapter = workshop.adapter(workshop.base())
    assert tunechat("adapters", "load", str(adapter), "--name", "support", "--model", str(base)).code == 0
    say_trained_on(home / "adapters" / "support" / "1", manifest)
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    told = json.loads(tunechat("adapters", "merge", "support", str(tmp_path / "merged"), "--json").out)
    assert told["weights"] == "dequantised"
    assert any("changed since the model was prepared" in note for note in told["notes"])


def test_base_may_be_pointed_at_and_is_checked(
    tunechat: Tunechat, workshop: Workshop, home: Path, tmp_path: Path
) -> None:
    base = Path(shutil.copytree(workshop.base(), tmp_path / "base"))
    manifest = prepared(base, home)
    adapter = workshop.adapter(workshop.base())
    assert tunechat("adapters", "load", str(adapter), "--name", "support", "--model", str(base)).code == 0
    say_trained_on(home / "adapters" / "support" / "1", manifest)
    moved = base.rename(tmp_path / "moved")
    told = tunechat("adapters", "merge", "support", str(tmp_path / "a"), "--base", str(moved), "--json")
    assert json.loads(told.out)["weights"] == "unquantised"
    other = workshop.base("qwen2", False)
    refused = tunechat("adapters", "merge", "support", str(tmp_path / "b"), "--base", str(other))
    assert refused.code == 1 and "holds other weights" in refused.err and refused.err.count("\n") == 1
    missing = tunechat("adapters", "merge", "support", str(tmp_path / "b"), "--base", str(tmp_path / "nothing"))
    assert missing.code == 1 and "there is no" in missing.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "home", "moved"]


def test_merged_folder_can_be_served_and_says_what_it_is(
    tunechat: Tunechat, workshop: Workshop, home: Path, tmp_path: Path
) -> None:
    base = workshop.base("qwen2", True)
    prepared(base, home)
    told = merge(tunechat, base, workshop.adapter(base, targets="lm_head q_proj"), tmp_path / "merged")
    manifest = prepared(tmp_path / "merged", home)
    assert manifest.layout == "compact"
    assert manifest.template_hash == prepared(base, home).template_hash
    with safe_open(tmp_path / "merged" / "model.safetensors", framework="pt") as file:
        facts = json.loads(file.metadata()["tunechat_merge"])
    assert (facts["adapter"], facts["digest"], facts["weights"]) == ("support@1", told["digest"], "unquantised")
    assert "lm_head shared its weight" in (tmp_path / "merged" / "README.md").read_text()


def test_never_over_something_else(tunechat: Tunechat, workshop: Workshop, home: Path, tmp_path: Path) -> None:
    base = workshop.base()
    prepared(base, home)
    target = tmp_path / "merged"
    merge(tunechat, base, workshop.adapter(base), target)
    again = ("adapters", "merge", "support", str(target), "--model", str(base))
    assert "--force" in tunechat(*again).err
    (target / "model.safetensors").write_bytes(b"old")
    assert tunechat(*again, "--force").code == 0
    assert load_file(target / "model.safetensors")
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("x")
    refused = tunechat("adapters", "merge", "support", str(precious), "--model", str(base), "--force")
    assert refused.code == 1 and (precious / "thesis.txt").read_text() == "x"
    assert not list(tmp_path.glob(".tmp-*"))
