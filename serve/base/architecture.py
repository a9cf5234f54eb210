"""The shape of a model, read off its Hugging Face `config.json`; and which models are served, how, or not at all."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..contract.errors import ModelError

COMPACT = frozenset({"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"})

# Keys of a config that only models have whose tokens do not all pass through the same dense layers, or whose cache is
# not one of keys and values a position.
_REFUSED_KEYS = {
    "num_experts": "mixture-of-experts",
    "num_local_experts": "mixture-of-experts",
    "n_routed_experts": "mixture-of-experts",
    "moe_intermediate_size": "mixture-of-experts",
    "kv_lora_rank": "latent-attention",
    "mamba_d_state": "hybrid",
    "ssm_cfg": "hybrid",
    "linear_num_key_heads": "hybrid",
    "state_size": "state-space",
}


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary position embedding (arXiv 2104.09864), rotate-half form.

    `inverse_frequencies` are those of head dimensions 0 to rotary_dim / 2, after any scaling.
    """

    inverse_frequencies: tuple[float, ...]

    @property
    def rotary_dim(self) -> int:
        return 2 * len(self.inverse_frequencies)


@dataclass(frozen=True, slots=True)
class Decoder:
    """The Llama-like decoder that the compact forward runs."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    context_length: int
    norm_eps: float
    rope: Rope
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool
    qk_norm: bool
    sliding_window: int | None
    tied_head: bool

    @property
    def query_size(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv_size(self) -> int:
        return self.kv_heads * self.head_dim


def architecture_of(config: Mapping[str, Any]) -> str:
    """The transformers class name of a config. Raises ModelError when there is none."""
    names = config.get("architectures") or []
    if not names:
        raise ModelError('config.json names no architecture; add "architectures": ["LlamaForCausalLM"], say')
    return str(names[0])


def check_served(config: Mapping[str, Any]) -> None:
    """Raises ModelError, naming the architecture and the reason, for a model that cannot be served right."""
    name = architecture_of(config)
    if not name.endswith("ForCausalLM") and not name.endswith("LMHeadModel"):
        raise ModelError(f"{name} is no causal language model; tunechat serves decoder-only text models")
    for key, kind in _REFUSED_KEYS.items():
        if config.get(key):
            raise ModelError(f"{name} is a {kind} model ({key} = {config[key]!r}); tunechat serves dense models only")
    if config.get("is_encoder_decoder"):
        raise ModelError(f"{name} has an encoder; tunechat serves decoder-only text models")


def is_compact(config: Mapping[str, Any]) -> bool:
    """Whether the compact forward runs this model; if not, the transformers class does."""
    if architecture_of(config) not in COMPACT:
        return False
    layer_types = config.get("layer_types") or []
    if len(set(layer_types)) > 1:
        return False
    if config.get("hidden_act", "silu") != "silu":
        return False
    return _rope_type(_rope_parameters(config)) in {"default", "linear", "llama3"}


def context_length_of(config: Mapping[str, Any]) -> int:
    """The longest sequence the model was made for, in tokens."""
    for key in ("max_position_embeddings", "n_positions", "max_seq_len"):
        if config.get(key):
            return int(config[key])
    raise ModelError('config.json states no context length; add "max_position_embeddings"')


def decoder_of(config: Mapping[str, Any]) -> Decoder:
    """The compact decoder that `config` describes. Raises ModelError naming the key that is missing."""
    name = architecture_of(config)
    try:
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        head_dim = int(config.get("head_dim") or hidden // heads)
        sliding = config.get("sliding_window")
        if name == "Qwen2ForCausalLM" or name == "Qwen3ForCausalLM":
            sliding = sliding if config.get("use_sliding_window") else None
        return Decoder(
            architecture=name,
            vocab_size=int(config["vocab_size"]),
            hidden_size=hidden,
            intermediate_size=int(config["intermediate_size"]),
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=head_dim,
            context_length=context_length_of(config),
            norm_eps=float(config["rms_norm_eps"]),
            rope=_rope(config, head_dim),
            qkv_bias=name == "Qwen2ForCausalLM" or bool(config.get("attention_bias")),
            output_bias=name != "Qwen2ForCausalLM" and bool(config.get("attention_bias")),
            mlp_bias=bool(config.get("mlp_bias")),
            qk_norm=name == "Qwen3ForCausalLM",
            sliding_window=int(sliding) if sliding else None,
            tied_head=bool(config.get("tie_word_embeddings", False)),
        )
    except KeyError as error:
        raise ModelError(f"config.json of {name} lacks {error.args[0]!r}") from error


def _rope_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """Both spellings: `rope_parameters` of transformers 5, `rope_theta` beside `rope_scaling` before it."""
    parameters = dict(config.get("rope_scaling") or {})
    parameters.update(config.get("rope_parameters") or {})
    parameters.setdefault("rope_theta", config.get("rope_theta", 10000.0))
    return parameters


def _rope_type(parameters: Mapping[str, Any]) -> str:
    return str(parameters.get("rope_type") or parameters.get("type") or "default")


def _rope(config: Mapping[str, Any], head_dim: int) -> Rope:
    parameters = _rope_parameters(config)
    rotary_dim = int(head_dim * float(config.get("partial_rotary_factor") or 1.0))
    theta = float(parameters["rope_theta"])
    frequencies = [theta ** (-i / rotary_dim) for i in range(0, rotary_dim, 2)]
    kind = _rope_type(parameters)
    if kind == "linear":
        frequencies = [f / float(parameters["factor"]) for f in frequencies]
    elif kind == "llama3":
        frequencies = [_llama3_scaled(f, parameters) for f in frequencies]
    elif kind != "default":
        raise ModelError(f"rope type {kind!r} is not known to the compact forward")
    return Rope(tuple(frequencies))


def _llama3_scaled(frequency: float, parameters: Mapping[str, Any]) -> float:
    """Llama 3.1's scaling: long wavelengths are stretched by `factor`, short ones kept, a ramp between."""
    factor = float(parameters["factor"])
    low, high = float(parameters["low_freq_factor"]), float(parameters["high_freq_factor"])
    original = float(parameters["original_max_position_embeddings"])
    wavelength = 2 * math.pi / frequency
    if wavelength < original / high:
        return frequency
    if wavelength > original / low:
        return frequency / factor
    smooth = (original / wavelength - low) / (high - low)
    return (1 - smooth) * frequency / factor + smooth * frequency
