"""Decides in which form every tensor of a model is kept, and under which name: the content of `weights.safetensors`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..contract.errors import ModelError
from .architecture import Decoder, decoder_of, is_compact
from .checkpoint import Checkpoint, Rows, Stacked
from .quantize import nf4_weight, pack_int4, pack_int8
from .safetensors_file import Planned, TensorSpec
from .weights import BLOCK, GROUP_ROWS, NF4_BLOCK

QUANTS = ("int4", "nf4", "none")
_PASSED_OVER = ("rotary_emb.inv_freq", "attn.bias", "attn.masked_bias")


@dataclass(slots=True)
class Plan:
    """What is written: `planned` in file order, and the `forms` that readers need beside the tensors' own shapes.

    `linears` has the [rows, columns] of every linear module of the transformers class, under that class's names.
    """

    layout: str
    quant: str
    planned: list[Planned] = field(default_factory=list)
    forms: dict[str, dict[str, Any]] = field(default_factory=dict)
    parameters: int = 0
    linears: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def metadata(self) -> dict[str, str]:
        return {"forms": json.dumps(self.forms, separators=(",", ":"))}

    def linear(self, name: str, rows: Rows) -> None:
        """A linear of a decoder layer: in the 4-bit codec when its columns fall into whole blocks, else as it is."""
        columns = rows.shape[1]
        if self.quant == "int4" and columns % BLOCK == 0:
            self._int4(name, rows)
        elif self.quant == "nf4" and columns % NF4_BLOCK == 0:
            self._nf4(name, rows)
        else:
            self.dense(name, rows)

    def table(self, name: str, rows: Rows) -> None:
        """The embedding or the head: 8 bits beside int4, else as it is."""
        if self.quant == "int4" and rows.shape[1] % BLOCK == 0:
            self._int8(name, rows)
        else:
            self.dense(name, rows)

    def dense(self, name: str, rows: Rows) -> None:
        spec = TensorSpec(f"{name}.weight", rows.dtype, rows.shape)
        self._add(name, rows.shape, {"form": "dense"}, (spec,), lambda: [rows.dense()])

    def vector(self, name: str, checkpoint: Checkpoint, sources: Iterable[str]) -> None:
        """Biases or norms, one after the other, in float32; `name` is the whole tensor name."""
        sources = tuple(sources)
        count = sum(checkpoint.shape(source)[0] for source in sources)
        self.parameters += count

        def make() -> list[Tensor]:
            return [torch.cat([checkpoint.tensor(source).float() for source in sources])]

        self.planned.append(Planned((TensorSpec(name, torch.float32, (count,)),), make))

    def other(self, name: str, checkpoint: Checkpoint, source: str) -> None:
        """A tensor that is neither a linear nor a vector, as it is."""
        example = checkpoint.tensor(source)
        self.parameters += example.numel()
        spec = TensorSpec(name, example.dtype, tuple(example.shape))
        self.planned.append(Planned((spec,), lambda: [checkpoint.tensor(source)]))

    def _int4(self, name: str, rows: Rows) -> None:
        groups, blocks = -(-rows.shape[0] // GROUP_ROWS), rows.shape[1] // BLOCK
        specs = (
            TensorSpec(f"{name}.quants", torch.uint8, (groups, blocks, BLOCK * GROUP_ROWS // 2)),
            TensorSpec(f"{name}.scales", torch.float16, (groups, blocks, GROUP_ROWS)),
            TensorSpec(f"{name}.minima", torch.float16, (groups, blocks, GROUP_ROWS)),
        )

        def make() -> list[Tensor]:
            weight = pack_int4(rows.int4())
            return [weight.quants, weight.scales, weight.minima]

        self._add(name, rows.shape, {"form": "int4", "rows": rows.shape[0]}, specs, make)

    def _int8(self, name: str, rows: Rows) -> None:
        groups, blocks = -(-rows.shape[0] // GROUP_ROWS), rows.shape[1] // BLOCK
        specs = (
            TensorSpec(f"{name}.quants", torch.int8, (groups, blocks, BLOCK * GROUP_ROWS)),
            TensorSpec(f"{name}.scales", torch.float16, (groups, blocks, GROUP_ROWS)),
        )

        def make() -> list[Tensor]:
            weight = pack_int8(rows.int8())
            return [weight.quants, weight.scales]

        self._add(name, rows.shape, {"form": "int8", "rows": rows.shape[0]}, specs, make)

    def _nf4(self, name: str, rows: Rows) -> None:
        count = rows.shape[0] * rows.shape[1]
        specs = (
            TensorSpec(f"{name}.quants", torch.uint8, (count // 2,)),
            TensorSpec(f"{name}.absmax", torch.float32, (count // NF4_BLOCK,)),
        )

        def make() -> list[Tensor]:
            weight = nf4_weight(rows.dense())
            return [weight.quants, weight.absmax]

        form = {"form": "nf4", "rows": rows.shape[0], "columns": rows.shape[1]}
        self._add(name, rows.shape, form, specs, make)

    def _add(
        self, name: str, shape: tuple[int, int], form: dict[str, Any], specs: tuple[TensorSpec, ...], make: Any
    ) -> None:
        self.parameters += shape[0] * shape[1]
        self.forms[name] = form

        def checked() -> list[Tensor]:
            try:
                return list(make())
            except ValueError as error:
                raise ModelError(f"{name} {error}") from error

        self.planned.append(Planned(specs, checked))


def plan(checkpoint: Checkpoint, quant: str) -> Plan:
    """How `checkpoint` is kept under the codec `quant`.

    Raises ModelError for tensors that are missing or of the wrong shape.
    """
    if quant not in QUANTS:
        raise ModelError(f"quantisation {quant!r} is not known; choose one of {', '.join(QUANTS)}")
    if is_compact(checkpoint.config):
        decoder = decoder_of(checkpoint.config)
        if _fits(checkpoint, decoder):
            return _compact(checkpoint, decoder, quant)
    return _generic(checkpoint, quant)


def _expected(decoder: Decoder) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a compact model, as its checkpoint has them."""
    hidden = decoder.hidden_size
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (decoder.vocab_size, hidden),
        "model.norm.weight": (hidden,),
    }
    if not decoder.tied_head:
        shapes["lm_head.weight"] = (decoder.vocab_size, hidden)
    for name, (rows, columns, bias) in _layer_linears(decoder).items():
        shapes[f"{name}.weight"] = (rows, columns)
        if bias:
            shapes[f"{name}.bias"] = (rows,)
    for layer in range(decoder.layers):
        prefix = f"model.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{prefix}.{norm}.weight"] = (hidden,)
        if decoder.qk_norm:
            shapes[f"{prefix}.self_attn.q_norm.weight"] = (decoder.head_dim,)
            shapes[f"{prefix}.self_attn.k_norm.weight"] = (decoder.head_dim,)
    return shapes


def _layer_linears(decoder: Decoder) -> dict[str, tuple[int, int, bool]]:
    """Rows, columns and whether there is a bias, of every linear module in the layers of a compact model."""
    hidden, inner = decoder.hidden_size, decoder.intermediate_size
    linears = {
        "self_attn.q_proj": (decoder.query_size, hidden, decoder.qkv_bias),
        "self_attn.k_proj": (decoder.kv_size, hidden, decoder.qkv_bias),
        "self_attn.v_proj": (decoder.kv_size, hidden, decoder.qkv_bias),
        "self_attn.o_proj": (hidden, decoder.query_size, decoder.output_bias),
        "mlp.gate_proj": (inner, hidden, decoder.mlp_bias),
        "mlp.up_proj": (inner, hidden, decoder.mlp_bias),
        "mlp.down_proj": (hidden, inner, decoder.mlp_bias),
    }
    return {f"model.layers.{layer}.{name}": kind for layer in range(decoder.layers) for name, kind in linears.items()}


def _fits(checkpoint: Checkpoint, decoder: Decoder) -> bool:
    """Whether the checkpoint holds exactly what the compact forward computes; one tensor more means another model."""
    expected = _expected(decoder)
    names = {n for n in checkpoint.names if not n.endswith(_PASSED_OVER)}
    if decoder.tied_head:
        names.discard("lm_head.weight")
    return names == set(expected) and all(checkpoint.shape(name) == shape for name, shape in expected.items())


def _compact(checkpoint: Checkpoint, decoder: Decoder, quant: str) -> Plan:
    result = Plan("compact", quant)
    result.linears = {name: (rows, columns) for name, (rows, columns, _) in _layer_linears(decoder).items()}
    result.linears["lm_head"] = (decoder.vocab_size, decoder.hidden_size)
    result.table("model.embed_tokens", checkpoint.matrix("model.embed_tokens.weight"))
    for layer in range(decoder.layers):
        prefix = f"model.layers.{layer}"
        _vectors(result, checkpoint, f"{prefix}.input_layernorm.weight")
        qkv = [f"{prefix}.self_attn.{part}_proj" for part in "qkv"]
        _fused(result, checkpoint, f"{prefix}.self_attn.qkv_proj", qkv, decoder.qkv_bias)
        if decoder.qk_norm:
            _vectors(result, checkpoint, f"{prefix}.self_attn.q_norm.weight")
            _vectors(result, checkpoint, f"{prefix}.self_attn.k_norm.weight")
        _fused(result, checkpoint, f"{prefix}.self_attn.o_proj", [f"{prefix}.self_attn.o_proj"], decoder.output_bias)
        _vectors(result, checkpoint, f"{prefix}.post_attention_layernorm.weight")
        gate_up = [f"{prefix}.mlp.{part}_proj" for part in ("gate", "up")]
        _fused(result, checkpoint, f"{prefix}.mlp.gate_up_proj", gate_up, decoder.mlp_bias)
        _fused(result, checkpoint, f"{prefix}.mlp.down_proj", [f"{prefix}.mlp.down_proj"], decoder.mlp_bias)
    _vectors(result, checkpoint, "model.norm.weight")
    if not decoder.tied_head:
        result.table("lm_head", checkpoint.matrix("lm_head.weight"))
    return result


def _vectors(result: Plan, checkpoint: Checkpoint, name: str) -> None:
    result.vector(name, checkpoint, [name])


def _fused(result: Plan, checkpoint: Checkpoint, name: str, parts: list[str], bias: bool) -> None:
    matrices = [checkpoint.matrix(f"{part}.weight") for part in parts]
    result.linear(name, matrices[0] if len(matrices) == 1 else Stacked(matrices))
    if bias:
        result.vector(f"{name}.bias", checkpoint, [f"{part}.bias" for part in parts])


def _generic(checkpoint: Checkpoint, quant: str) -> Plan:
    from .skeleton import skeleton_of

    skeleton = skeleton_of(checkpoint.config)
    result = Plan("generic", quant)
    result.linears = dict(skeleton.modules)
    for name, source in skeleton.sources(checkpoint).items():
        stem = name.removesuffix(".weight")
        shape = checkpoint.shape(source)
        if stem in skeleton.linears and name.endswith(".weight"):
            result.linear(stem, checkpoint.matrix(source))
        elif len(shape) == 1:
            result.vector(name, checkpoint, [source])
        elif len(shape) == 2 and name.endswith(".weight"):
            result.dense(stem, checkpoint.matrix(source))
        else:
            result.other(name, checkpoint, source)
    return result
