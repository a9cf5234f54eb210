"""InternLM2 checkpoints compute, once prepared, what InternLM2's own structure computes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tunechat.serve.base.entry import BaseEntry
from tunechat.serve.base.full_weights import full_weights
from tunechat.serve.base.internlm import llama_config
from tunechat.serve.base.prepare import prepare
from tunechat.serve.contract.errors import ModelError
from tunechat.serve.engine.options import EngineOptions
from tunechat.serve.engine.runner import build_runner
from tunechat.tests.serve.engine.paging import Pages

from .conftest import quiet
from .internlm_models import internlm2_logits, make_internlm2

CASES: dict[str, dict[str, Any]] = {
    "grouped": {},
    "one-key-head": {"num_key_value_heads": 1},
    "no-groups": {"num_key_value_heads": 8},
    "bias": {"bias": True},
    "linear": {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "unscaled": {"rope_scaling": None},
}


def prepared(folder: Path, home: Path, quant: str = "none") -> BaseEntry:
    return BaseEntry.open(prepare(str(folder), quant=quant, home=home, report=quiet))


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_internlm2(tmp_path: Path, case: str) -> None:
    folder = make_internlm2(tmp_path / "model", shards=3 if case == "grouped" else 1, **CASES[case])
    entry = prepared(folder, tmp_path)
    options = EngineOptions(model="tiny", home="unused", device="cpu", cache_bytes=1 << 22)
    runner = build_runner(entry.folder, options)
    assert runner.forward_name == "compact"
    pages = Pages(runner)
    tokens = torch.randint(0, entry.manifest.vocab_size, (60,), generator=torch.Generator().manual_seed(3)).tolist()
    sequence = pages.place(tokens)
    pages.run([(sequence, 60)])
    expected = internlm2_logits(folder, tokens)
    found = torch.stack(sequence.logits)
    assert torch.allclose(found, expected[-len(found) :], rtol=1e-3, atol=2e-4 * float(expected.std()) + 1e-4)


def test_the_entry_says_what_it_was_made_from(tmp_path: Path) -> None:
    entry = prepared(make_internlm2(tmp_path / "model"), tmp_path, "int4")
    manifest = entry.manifest
    assert (manifest.architecture, manifest.converted_from) == ("LlamaForCausalLM", "InternLM2ForCausalLM")
    assert entry.config["model_type"] == "llama" and "auto_map" not in entry.config
    assert sorted({path.suffix for path in entry.folder.iterdir()}) == [".json", ".safetensors"]
    assert "model.layers.1.self_attn.k_proj" in manifest.linears
    assert manifest.parameters == sum(t.numel() for t in load_file(tmp_path / "model" / "model.safetensors").values())


def test_its_source_is_found_again_in_the_same_layout(tmp_path: Path) -> None:
    entry = prepared(make_internlm2(tmp_path / "model"), tmp_path, "int4")
    weights = full_weights(entry, tmp_path, quiet)
    assert not weights.is_dequantised
    assert weights.tensors.config["architectures"] == ["LlamaForCausalLM"]
    assert weights.tensors.shape("model.layers.0.self_attn.v_proj.weight") == (16, 64)


def test_transformers_reads_what_is_made_of_it(tmp_path: Path) -> None:
    """The config alone says all: transformers' Llama with the renamed tensors is the same model."""
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = make_internlm2(tmp_path / "model", bias=True)
    tensors = full_weights(prepared(folder, tmp_path, "int4"), tmp_path, quiet).tensors
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**tensors.config)).eval()
    model.load_state_dict({name: tensors.tensor(name) for name in tensors.names})
    tokens = list(range(5, 45))
    with torch.inference_mode():
        logits = model(torch.tensor([tokens])).logits[0]
    assert torch.allclose(logits, internlm2_logits(folder, tokens), rtol=1e-3, atol=1e-3)


def test_internlm3_has_llamas_names_already(tmp_path: Path) -> None:
    config = {"architectures": ["InternLM3ForCausalLM"], "model_type": "internlm3", "qkv_bias": True, "bias": True}
    made = llama_config(config | {"rope_scaling": {"rope_type": "dynamic", "factor": 6.0}, "head_dim": 16})
    assert made == {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": True,
        "mlp_bias": True,
        "head_dim": 16,
    }
    with pytest.raises(ModelError, match="bias in some of its linears"):
        llama_config(config | {"bias": False})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_scaling": {"type": "yarn", "factor": 2.0}}, "scaled by 'yarn'"),
        ({"num_key_value_heads": 3}, "cannot be shared by 8 heads and 3"),
        ({"num_key_value_heads": 4}, "has 96 rows"),
    ],
)
def test_what_is_no_llama_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folder = make_internlm2(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelError, match=message):
        prepared(folder, tmp_path)


def test_tensors_that_are_not_known_are_refused(tmp_path: Path) -> None:
    folder = make_internlm2(tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.attention.Plora_A.weight"] = torch.zeros(2, 64)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match="Plora_A"):
        prepared(folder, tmp_path)
