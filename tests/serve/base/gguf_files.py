"""Small GGUF files for tests, written by the `gguf` package's own writer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType, GGUFWriter, RopeScalingType, quants

from tunechat.tests.tiny_models import SPECIAL_TOKENS, byte_tokenizer

PARTS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TOP = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
TOP["lm_head.weight"] = "output.weight"


def gguf_name(name: str) -> str:
    if name in TOP:
        return TOP[name]
    layer, _, rest = name.removeprefix("model.layers.").partition(".")
    part, _, kind = rest.rpartition(".")
    return f"blk.{layer}.{PARTS[part]}.{kind}"


def interleaved(weight: npt.NDArray[Any], heads: int) -> npt.NDArray[Any]:
    """Rows of Q or K as llama.cpp stores them for the llama architecture."""
    return weight.reshape(heads, 2, -1, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(
    path: Path,
    architecture: str,
    config: dict[str, Any],
    tensors: dict[str, npt.NDArray[np.float32]],
    kind: GGMLQuantizationType = GGMLQuantizationType.F32,
    extra: dict[str, npt.NDArray[np.float32]] | None = None,
    scaling: tuple[RopeScalingType, float] | None = None,
) -> Path:
    """A model with Hugging Face names and row order as a GGUF file whose matrices are of `kind`."""
    writer = GGUFWriter(path, architecture)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    if scaling is not None:
        writer.add_rope_scaling_type(scaling[0])
        writer.add_rope_scaling_factor(scaling[1])
    if architecture == "qwen3":
        writer.add_key_length(config["head_dim"])
    add_byte_tokenizer(writer)
    for name, value in tensors.items():
        if architecture == "llama" and ".q_proj." in name:
            value = interleaved(value, config["num_attention_heads"])
        if architecture == "llama" and ".k_proj." in name:
            value = interleaved(value, config["num_key_value_heads"])
        if value.ndim == 2 and kind != GGMLQuantizationType.F32:
            writer.add_tensor(gguf_name(name), quants.quantize(value, kind), raw_dtype=kind)
        else:
            writer.add_tensor(gguf_name(name), np.ascontiguousarray(value, dtype=np.float32))
    for name, value in (extra or {}).items():
        writer.add_tensor(name, value)
    finish(writer)
    return path


def add_byte_tokenizer(writer: GGUFWriter) -> None:
    vocabulary = byte_tokenizer().get_vocab()
    tokens = sorted(vocabulary, key=lambda token: vocabulary[token])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIAL_TOKENS else 1 for token in tokens])
    writer.add_bos_token_id(vocabulary["<|endoftext|>"])
    writer.add_eos_token_id(vocabulary["<|im_end|>"])
    writer.add_chat_template("{{ messages[0]['content'] }}")


def finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
