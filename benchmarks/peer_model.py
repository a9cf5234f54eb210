"""The base model's own weights as an ordinary Hugging Face folder, so that another server can be measured on them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tunechat.serve.base.architecture import decoder_of
from tunechat.serve.base.entry import BaseEntry


def write_peer_model(entry_folder: Path, target: Path, dtype: torch.dtype) -> Path:
    """Dequantises a compact entry into `target`: config, tokenizer, safetensors of `dtype`. Keeps what is there."""
    if (target / "model.safetensors").exists():
        return target
    target.mkdir(parents=True, exist_ok=True)
    entry = BaseEntry.open(entry_folder)
    save_file(_unfused(entry, dtype), target / "model.safetensors", metadata={"format": "pt"})
    config = {**entry.config, "dtype": str(dtype).removeprefix("torch.")}
    (target / "config.json").write_text(json.dumps(config, indent=1))
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if (entry_folder / name).exists():
            shutil.copyfile(entry_folder / name, target / name)
    return target


def _unfused(entry: BaseEntry, dtype: torch.dtype) -> dict[str, Tensor]:
    decoder = decoder_of(entry.config)
    parts = {
        "self_attn.qkv_proj": (
            ("self_attn.q_proj", decoder.query_size),
            ("self_attn.k_proj", decoder.kv_size),
            ("self_attn.v_proj", decoder.kv_size),
        ),
        "self_attn.o_proj": (("self_attn.o_proj", decoder.hidden_size),),
        "mlp.gate_up_proj": (("mlp.gate_proj", decoder.intermediate_size), ("mlp.up_proj", decoder.intermediate_size)),
        "mlp.down_proj": (("mlp.down_proj", decoder.hidden_size),),
    }
    tensors = {
        "model.embed_tokens.weight": entry.weight("model.embed_tokens").dequantize(),
        "model.norm.weight": entry.vector("model.norm.weight"),
    }
    if not decoder.tied_head:
        tensors["lm_head.weight"] = entry.weight("lm_head").dequantize()
    for i in range(decoder.layers):
        layer = f"model.layers.{i}."
        for fused, names in parts.items():
            rows = torch.split(entry.weight(layer + fused).dequantize(), [size for _, size in names])
            for (name, _), part in zip(names, rows, strict=True):
                tensors[f"{layer}{name}.weight"] = part
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{layer}{norm}.weight"] = entry.vector(f"{layer}{norm}.weight")
    return {name: tensor.to(dtype).contiguous().clone() for name, tensor in tensors.items()}
