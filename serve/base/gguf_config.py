"""The Hugging Face config that a GGUF file's metadata describes."""

from __future__ import annotations

import math
from typing import Any

from ..contract.errors import ModelError
from .gguf_file import GgufFile

_CLASSES = {
    "llama": ("LlamaForCausalLM", "llama"),
    "qwen2": ("Qwen2ForCausalLM", "qwen2"),
    "qwen3": ("Qwen3ForCausalLM", "qwen3"),
}
_REQUIRED = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}
_SPECIAL = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "pad_token_id": "padding_token_id"}
# Llama 3.1 and 3.2 differ in the factor alone; the file holds only the divisors that follow from it.
_LLAMA3_FACTORS = (8.0, 32.0)


def gguf_config(file: GgufFile) -> dict[str, Any]:
    """`config.json` for `file`. Raises ModelError naming the architecture or key that cannot be told."""
    name = file.architecture
    if name not in _CLASSES:
        raise ModelError(
            f"{file.path.name} is of the GGUF architecture {name!r}; those read are {', '.join(sorted(_CLASSES))}. "
            "Use the model's safetensors files instead"
        )
    metadata = file.metadata
    config: dict[str, Any] = {}
    for key, stored in _REQUIRED.items():
        value = metadata.get(f"{name}.{stored}")
        if not isinstance(value, int | float) or not value > 0:
            raise ModelError(f"{file.path.name}: metadata {name}.{stored} is {value!r}, a positive number is needed")
        config[key] = value
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise ModelError(f"{file.path.name} has no token_embd.weight; it is no whole model")
    heads = config["num_attention_heads"]
    config |= {
        "vocab_size": embedding.shape[0],
        "num_key_value_heads": metadata.get(f"{name}.attention.head_count_kv", heads),
        "head_dim": _head_dim(metadata, name, config["hidden_size"] // heads),
        "hidden_act": "silu",
        "rope_parameters": _rope(file, name),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "torch_dtype": "float32",
        "use_cache": True,
    }
    if not isinstance(config["num_key_value_heads"], int):
        raise ModelError(f"{file.path.name}: its layers have different numbers of heads, which is not served")
    if experts := metadata.get(f"{name}.expert_count"):
        config["num_local_experts"] = experts
    for key, stored in _SPECIAL.items():
        if (value := metadata.get(f"tokenizer.ggml.{stored}")) is not None:
            config[key] = value
    return config | _family(file, name)


def end_of_text_ids(metadata: dict[str, Any]) -> list[int]:
    """The ids that end an answer: end of sequence first, then end of turn where the file names another."""
    ids = [metadata.get(f"tokenizer.ggml.{key}") for key in ("eos_token_id", "eot_token_id")]
    return list(dict.fromkeys(i for i in ids if isinstance(i, int)))


def _head_dim(metadata: dict[str, Any], name: str, default: int) -> int:
    return int(metadata.get(f"{name}.attention.key_length") or metadata.get(f"{name}.rope.dimension_count") or default)


def _family(file: GgufFile, name: str) -> dict[str, Any]:
    architecture, model_type = _CLASSES[name]
    values: dict[str, Any] = {"architectures": [architecture], "model_type": model_type}
    if name == "llama":
        values["attention_bias"] = "blk.0.attn_q.bias" in file.tensors
        values["mlp_bias"] = "blk.0.ffn_gate.bias" in file.tensors
        if window := file.metadata.get("llama.attention.sliding_window"):
            values |= {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": window}
    else:
        values["use_sliding_window"] = False
    if name == "qwen3":
        values["attention_bias"] = False
    return values


def _rope(file: GgufFile, name: str) -> dict[str, Any]:
    metadata = file.metadata
    theta = float(metadata.get(f"{name}.rope.freq_base", 10000.0))
    kind = metadata.get(f"{name}.rope.scaling.type", "none")
    if "rope_freqs.weight" in file.tensors:
        return _llama3_rope(file, theta)
    if kind == "none":
        return {"rope_type": "default", "rope_theta": theta}
    scaling = {"rope_theta": theta, "factor": float(metadata.get(f"{name}.rope.scaling.factor", 1.0))}
    if kind == "linear":
        return scaling | {"rope_type": "linear"}
    if kind == "yarn":
        original = metadata.get(f"{name}.rope.scaling.original_context_length", metadata[f"{name}.context_length"])
        return scaling | {"rope_type": "yarn", "original_max_position_embeddings": original}
    raise ModelError(f"{file.path.name}: rope scaling {kind!r} is not known")


def _llama3_rope(file: GgufFile, theta: float) -> dict[str, Any]:
    """The Llama 3 scaling whose divisors the file holds. Raises ModelError when it is none of the published ones."""
    divisors = file.dequantized(file.tensors["rope_freqs.weight"]).reshape(-1).tolist()
    for factor in _LLAMA3_FACTORS:
        expected = [_llama3_divisor(i / len(divisors), theta, factor) for i in range(len(divisors))]
        if all(math.isclose(a, b, rel_tol=1e-3) for a, b in zip(divisors, expected, strict=True)):
            return {
                "rope_type": "llama3",
                "rope_theta": theta,
                "factor": factor,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192,
            }
    raise ModelError(f"{file.path.name}: its rope frequencies are scaled in a way that is not known")


def _llama3_divisor(position: float, theta: float, factor: float, original: int = 8192) -> float:
    wavelength = 2 * math.pi * theta**position
    if wavelength < original / 4.0:
        return 1.0
    if wavelength > original:
        return factor
    smooth = (original / wavelength - 1.0) / 3.0
    return float(1.0 / ((1.0 - smooth) / factor + smooth))


def generation_config(metadata: dict[str, Any]) -> dict[str, Any]:
    """`generation_config.json`: which ids begin, pad and end a text."""
    config: dict[str, Any] = {"eos_token_id": end_of_text_ids(metadata)}
    for key in ("bos_token_id", "pad_token_id"):
        if (value := metadata.get(f"tokenizer.ggml.{_SPECIAL[key]}")) is not None:
            config[key] = value
    return config
