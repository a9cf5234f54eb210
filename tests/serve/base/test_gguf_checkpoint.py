"""GGUF models: names, row order and shapes are Hugging Face's, and blocks are taken over without loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, RopeScalingType, quants
from safetensors.torch import load_file

from tunechat.serve.base.architecture import decoder_of, is_compact
from tunechat.serve.base.entry import BaseEntry
from tunechat.serve.base.gguf_checkpoint import GgufCheckpoint, hugging_face_name
from tunechat.serve.base.json_text import read_object
from tunechat.serve.base.prepare import prepare
from tunechat.serve.contract.errors import ModelError
from tunechat.tests.tiny_models import make_tiny

from .conftest import quiet
from .gguf_files import write_gguf

LOSSLESS_INT4 = ["Q4_0", "Q4_1"]


def tiny(folder: Path, family: str, **overrides: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    make_tiny(folder, family, **overrides)
    tensors = load_file(folder / "model.safetensors")
    return read_object(folder / "config.json"), {name: value.numpy() for name, value in tensors.items()}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_a_file_gives_the_folder_it_was_made_from(tmp_path: Path, family: str, tied: bool) -> None:
    config, tensors = tiny(tmp_path / "hf", family, tie_word_embeddings=tied)
    path = write_gguf(tmp_path / f"{family}.gguf", family, config, tensors)
    from_file, from_folder = (
        BaseEntry.open(prepare(str(source), quant="none", home=tmp_path / "home", report=quiet))
        for source in (path, tmp_path / "hf")
    )
    assert from_file.manifest.layout == from_folder.manifest.layout == "compact"
    assert set(from_file.names()) == set(from_folder.names())
    assert from_file.has("lm_head") is not tied
    for name in from_folder.names():
        if name.endswith((".weight", ".bias")):
            assert torch.equal(from_file.vector(name), from_folder.vector(name)), name
        else:
            assert torch.equal(from_file.weight(name).dequantize(), from_folder.weight(name).dequantize()), name
    # The file keeps this number in float32.
    assert from_file.config["rms_norm_eps"] == pytest.approx(from_folder.config["rms_norm_eps"], rel=1e-6)
    described = decoder_of(from_folder.config | {"rms_norm_eps": from_file.config["rms_norm_eps"]})
    assert decoder_of(from_file.config) == described


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0", "Q5_0", "Q5_1", "F16", "BF16"])
def test_blocks_of_each_kind(tmp_path: Path, kind: str) -> None:
    config, tensors = tiny(tmp_path / "hf", "llama")
    type_ = GGMLQuantizationType[kind]
    path = write_gguf(tmp_path / "m.gguf", "llama", config, tensors, type_)
    checkpoint = GgufCheckpoint(path)
    for name in ("model.layers.0.self_attn.q_proj.weight", "model.layers.1.mlp.down_proj.weight"):
        stored = torch.from_numpy(quants.dequantize(quants.quantize(tensors[name], type_), type_).copy())
        rows = checkpoint.matrix(name)
        assert torch.equal(rows.dense().float(), stored)
        int4 = rows.int4()
        values = int4.q.view(rows.shape[0], -1, 32) * int4.scale.float()[..., None] + int4.minimum.float()[..., None]
        if kind in LOSSLESS_INT4:
            assert torch.equal(values.view(rows.shape), stored)
        else:
            assert float((values.view(rows.shape) - stored).abs().max()) < 0.04
        if kind == "Q8_0":
            int8 = rows.int8()
            values = int8.q.view(rows.shape[0], -1, 32) * int8.scale.float()[..., None]
            assert torch.equal(values.view(rows.shape), stored)


def test_16_bit_types_stay_when_nothing_is_quantised(tmp_path: Path) -> None:
    config, tensors = tiny(tmp_path / "hf", "llama")
    path = write_gguf(tmp_path / "m.gguf", "llama", config, tensors, GGMLQuantizationType.BF16)
    entry = BaseEntry.open(prepare(str(path), quant="none", home=tmp_path / "home", report=quiet))
    assert entry.tensor("model.embed_tokens.weight").dtype == torch.bfloat16
    assert entry.vector("model.norm.weight").dtype == torch.float32


@pytest.mark.parametrize("name", ["blk.0.attn_sinks.weight", "v.blk.0.attn_q.weight", "blk.x.attn_q.weight", "rope"])
def test_tensors_of_other_models_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match="belongs to no model family"):
        hugging_face_name(name)


def test_other_architectures_are_refused(tmp_path: Path) -> None:
    config, tensors = tiny(tmp_path / "hf", "llama")
    path = write_gguf(tmp_path / "m.gguf", "mamba", config, tensors)
    with pytest.raises(ModelError, match="'mamba'"):
        GgufCheckpoint(path)


@pytest.mark.parametrize(("factor", "known"), [(8.0, True), (32.0, True), (5.0, False)])
def test_llama3_rope_is_recognised_by_its_divisors(tmp_path: Path, factor: float, known: bool) -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    parameters = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    settings: dict[str, Any] = {"hidden_size": 256, "head_dim": 64, "rope_parameters": parameters}
    config, tensors = tiny(tmp_path / "hf", "llama", **settings)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](LlamaConfig(**config), None)
    plain = 500000.0 ** (-torch.arange(0, 64, 2) / 64)
    path = tmp_path / "m.gguf"
    write_gguf(path, "llama", config, tensors, extra={"rope_freqs.weight": (plain / scaled).numpy()})
    if not known:
        with pytest.raises(ModelError, match="not known"):
            GgufCheckpoint(path)
        return
    checkpoint = GgufCheckpoint(path)
    assert checkpoint.config["rope_parameters"] == parameters
    assert is_compact(checkpoint.config)


@pytest.mark.parametrize(("kind", "layout"), [("NONE", "compact"), ("LINEAR", "compact"), ("YARN", "generic")])
def test_scaled_rope_is_kept_and_chooses_the_layout(tmp_path: Path, kind: str, layout: str) -> None:
    config, tensors = tiny(tmp_path / "hf", "llama")
    path = write_gguf(tmp_path / "m.gguf", "llama", config, tensors, scaling=(RopeScalingType[kind], 4.0))
    entry = BaseEntry.open(prepare(str(path), quant="none", home=tmp_path / "home", report=quiet))
    assert entry.manifest.layout == layout
    parameters = entry.config["rope_parameters"]
    assert parameters["rope_type"] == (kind.lower() if kind != "NONE" else "default")
    assert parameters.get("factor") == (4.0 if kind != "NONE" else None)
    if layout == "generic":
        for name, value in tensors.items():
            assert torch.equal(entry.tensor(name).float(), torch.from_numpy(value)), name
