"""InternLM's checkpoints as the Llama checkpoints that they are, but for names and the order of rows.

InternLM2 and 2.5 (`modeling_internlm2.py` of their repositories, of which no line is run here) keep queries, keys and
values of a layer in one matrix. Its rows go by key-value head: the rows of the query heads that share it, then its
own, then its value's. InternLM3 has Llama's names already.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..contract.errors import ModelError
from .architecture import architecture_of
from .checkpoint import Checkpoint, DenseRows

ARCHITECTURES = frozenset({"InternLM2ForCausalLM", "InternLM3ForCausalLM"})

_GROUPED = "attention.wqkv"
_LAYER = re.compile(r"(model\.layers\.\d+)\.(\w+(?:\.w\w+)?)\.(weight|bias)")
_LAYER_NAMES = {
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w3": "mlp.up_proj",
    "feed_forward.w2": "mlp.down_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_OTHER_NAMES = {"model.tok_embeddings.weight": "model.embed_tokens.weight", "output.weight": "lm_head.weight"}
# What means something to InternLM's own code only, and what says again what the converted config says.
_DROPPED = frozenset({"auto_map", "bias", "qkv_bias", "attn_implementation", "pretraining_tp", "rope_scaling"})


def is_internlm(config: Mapping[str, Any]) -> bool:
    """Whether the model that `config` describes is converted here."""
    return bool(config.get("architectures")) and architecture_of(config) in ARCHITECTURES


def as_llama(checkpoint: Checkpoint) -> Checkpoint:
    """The same model under Llama's names. Raises ModelError where it is none that Llama's layers compute."""
    config = llama_config(checkpoint.config)
    if architecture_of(checkpoint.config) == "InternLM3ForCausalLM":
        return Renamed(checkpoint, config, {name: Part(name) for name in checkpoint.names})
    return Renamed(checkpoint, config, _parts(checkpoint, config))


def llama_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The Llama config of an InternLM config. Raises ModelError for what Llama's has no word for."""
    name = architecture_of(config)
    bias = bool(config.get("bias", False))
    if name == "InternLM3ForCausalLM" and bool(config.get("qkv_bias", False)) != bias:
        raise ModelError(f"{name} with a bias in some of its linears (bias, qkv_bias) cannot be served")
    result = {key: value for key, value in config.items() if key not in _DROPPED}
    result |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": bias}
    result["mlp_bias"] = bias and name == "InternLM3ForCausalLM"
    scaling = config.get("rope_scaling") or {}
    kind = str(scaling.get("rope_type") or scaling.get("type") or "default")
    if kind == "linear":
        result["rope_scaling"] = {"rope_type": "linear", "factor": scaling["factor"]}
    # Dynamic scaling changes nothing up to `max_position_embeddings`, and no longer sequence is ever served.
    elif kind not in {"default", "dynamic"}:
        raise ModelError(f"{name} with positions scaled by {kind!r} cannot be served; linear and dynamic are known")
    return result


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor of the source, or those of its rows that `pick` takes out; `rows` is how many these are."""

    source: str
    rows: int | None = None
    pick: Callable[[Tensor], Tensor] | None = None


class Renamed:
    """A checkpoint whose tensors are those of another one under other names, or some rows of them."""

    def __init__(self, source: Checkpoint, config: dict[str, Any], parts: Mapping[str, Part]) -> None:
        self.config = config
        self._source = source
        self._parts = dict(parts)

    @property
    def names(self) -> Collection[str]:
        return self._parts.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        part = self._parts[name]
        shape = self._source.shape(part.source)
        return shape if part.rows is None else (part.rows, *shape[1:])

    def matrix(self, name: str) -> DenseRows:
        return DenseRows(self, name, self._source.matrix(self._parts[name].source).dtype)

    def tensor(self, name: str) -> Tensor:
        part = self._parts[name]
        tensor = self._source.tensor(part.source)
        return tensor if part.pick is None else part.pick(tensor)


def _parts(checkpoint: Checkpoint, config: Mapping[str, Any]) -> dict[str, Part]:
    """Where each tensor of the Llama model is. Names that are not known stay as they are, and are refused later."""
    try:
        heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
        kv_heads = int(config.get("num_key_value_heads") or heads)
    except KeyError as error:
        raise ModelError(f"config.json of InternLM2ForCausalLM lacks {error.args[0]!r}") from error
    if heads < 1 or kv_heads < 1 or heads % kv_heads or hidden % heads:
        raise ModelError(f"{hidden} columns cannot be shared by {heads} heads and {kv_heads} key-value heads")
    group, width = heads // kv_heads, hidden // heads
    parts: dict[str, Part] = {}
    for name in checkpoint.names:
        match = _LAYER.fullmatch(name)
        prefix, module, kind = match.groups() if match else ("", "", "")
        if module == _GROUPED:
            if checkpoint.shape(name)[0] != (group + 2) * kv_heads * width:
                raise ModelError(f"{name} has {checkpoint.shape(name)[0]} rows where its heads need another number")
            for letter, first, count in (("q", 0, group), ("k", group, 1), ("v", group + 1, 1)):
                pick = _picker(group + 2, width, first, count)
                parts[f"{prefix}.self_attn.{letter}_proj.{kind}"] = Part(name, kv_heads * count * width, pick)
        elif module in _LAYER_NAMES:
            parts[f"{prefix}.{_LAYER_NAMES[module]}.{kind}"] = Part(name)
        else:
            parts[_OTHER_NAMES.get(name, name)] = Part(name)
    return parts


def _picker(group: int, width: int, first: int, count: int) -> Callable[[Tensor], Tensor]:
    """Takes `count` heads of each group of `group`, from head `first` on; a head is `width` rows."""

    def pick(tensor: Tensor) -> Tensor:
        rest = tensor.shape[1:]
        heads = tensor.reshape(-1, group, width, *rest)[:, first : first + count]
        return heads.reshape(-1, *rest).contiguous()

    return pick
