"""A transformers class over the mapped weights of a prepared model: no weight is copied, whatever the layout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..contract.errors import ModelError
from .architecture import architecture_of
from .class_weights import ClassWeights
from .entry import BaseEntry
from .linear import Linear4bit
from .weights import DenseWeight, Int8Weight, place


class Table(nn.Module):
    """An embedding whose rows are kept in 8 bits and never change."""

    def __init__(self, weight: Int8Weight) -> None:
        super().__init__()
        self._rows = weight.rows
        self.register_buffer("_quants", weight.quants, persistent=False)
        self.register_buffer("_scales", weight.scales, persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """int [...] to float32 [..., columns]."""
        quants: Tensor = self._quants  # type: ignore[assignment]
        scales: Tensor = self._scales  # type: ignore[assignment]
        rows = Int8Weight(quants, scales, self._rows).lookup(tokens.reshape(-1))
        return rows.reshape(*tokens.shape, -1)


def build_class(entry: BaseEntry, device: torch.device, attention: str, linear: type[Linear4bit] = Linear4bit) -> Any:
    """The causal LM of the entry's config, frozen, in evaluation mode, with `attention` of the attention interface.

    Its linears are `linear` modules over the entry, its other parameters views of it (on CPU). Raises ModelError for a
    class that does not use the attention interface, and for one that the entry does not fit.
    """
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(entry.folder, trust_remote_code=False)
    config._attn_implementation = attention
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    if not model._supports_attention_backend:
        name = architecture_of(entry.config)
        raise ModelError(f"the transformers class {name} does not use the attention interface, so it cannot be served")
    model.eval().requires_grad_(False)
    _load(model, ClassWeights(entry), device, linear)
    model.to(device)
    return model


def _load(model: nn.Module, weights: ClassWeights, device: torch.device, linear: type[Linear4bit]) -> None:
    """Replaces linears by products over the weights, and fills the other parameters.

    Raises ModelError naming what the weights lack or hold in another shape.
    """
    from transformers.pytorch_utils import Conv1D

    embedding = next(path for path, module in model.named_modules() if isinstance(module, nn.Embedding))
    for path, module in list(model.named_modules()):
        if isinstance(module, nn.Linear):
            source = embedding if path == "lm_head" and not weights.has("lm_head") else path
            bias = _bias(weights, path, module, device)
            replace(model, path, linear(place(weights.matrix(source), device), bias))
        elif isinstance(module, Conv1D):
            weight = DenseWeight(weights.matrix(path).dequantize().t().contiguous())
            replace(model, path, Linear4bit(place(weight, device), _bias(weights, path, module, device)))
        elif isinstance(module, nn.Embedding):
            table = weights.matrix(path)
            if isinstance(table, Int8Weight):
                replace(model, path, Table(table))
            else:
                module.register_forward_hook(_to_float32)
    for path, parameter in list(model.named_parameters()):
        owner, _, leaf = path.rpartition(".")
        tensor = weights.tensor(path).to(device)
        if tensor.shape != parameter.shape:
            raise ModelError(
                f"{path} is {tuple(tensor.shape)} in the model's files and {tuple(parameter.shape)} in its class"
            )
        kept = tensor if tensor.dim() > 1 else tensor.float()
        setattr(model.get_submodule(owner), leaf, nn.Parameter(kept, requires_grad=False))


def replace(model: nn.Module, path: str, module: nn.Module) -> None:
    """Puts `module` where the module at `path` is."""
    owner, _, leaf = path.rpartition(".")
    setattr(model.get_submodule(owner), leaf, module)


def _to_float32(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
    return output.float()


def _bias(weights: ClassWeights, path: str, module: nn.Module, device: torch.device) -> Tensor | None:
    return None if getattr(module, "bias", None) is None else weights.bias(path).to(device)
