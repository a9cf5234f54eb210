"""The base as it is served, frozen, with an adapter over it that learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..serve.base.entry import BaseEntry
from ..serve.base.mapped_class import build_class
from ..serve.contract.adapters import AdapterOrigin
from .attention import ISOLATED, register
from .checkpoint import AdapterProduct, Checkpoint
from .computing import Computing
from .lora import LoraPlan, adapter_state, inject, linear_class, load_adapter
from .model import Made, TrainedModel


class AdaptedModel(TrainedModel):
    """LoRA or DoRA over a base in any form. The adapter's numbers are float32; the base's are mapped, on a CPU."""

    def __init__(self, entry: BaseEntry, plan: LoraPlan, computing: Computing | None = None) -> None:
        """Raises ModelError, as TrainedModel does."""
        computing = computing or Computing()
        register()
        base = build_class(entry, computing.device, ISOLATED, linear_class(plan))
        super().__init__(base, computing)
        if computing.dtype != torch.float32:
            _compute_in(base, computing.dtype)
        self._linears = entry.manifest.linears
        self._wrapped = inject(base, plan, entry.manifest)
        self._head = base.get_output_embeddings()
        self._train(self._wrapped.named_parameters())
        self._random = self._random_modules() if plan.dropout else []

    def product(self, origin: AdapterOrigin, card: str) -> AdapterProduct:
        return AdapterProduct(adapter_state(self._wrapped), self._config(), origin, self._linears, card)

    def publish(self, checkpoint: Checkpoint, folder: Path) -> Made:
        return Made(adapter=str(checkpoint.adapter))

    def load(self, checkpoint: Checkpoint) -> None:
        load_adapter(self._wrapped, checkpoint.tensors())

    def _config(self) -> dict[str, Any]:
        """The content of PEFT's `adapter_config.json`."""
        config: dict[str, Any] = self._wrapped.peft_config["default"].to_dict()
        plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
        return plain | {"inference_mode": True}

    def _random_modules(self) -> list[nn.Module]:
        """What has to know that it learns, for the adapter to leave inputs out at random."""
        from peft.tuners.lora import LoraLayer

        layers = [module for module in self._wrapped.modules() if isinstance(module, LoraLayer)]
        return [part for layer in layers for part in (layer, *layer.lora_dropout.values())]


def _compute_in(base: Any, dtype: torch.dtype) -> None:
    """Lets the hidden states have this type from the embedding on: frozen linears give the type that they get."""
    for parameter in base.parameters():
        if parameter.dim() == 1:
            parameter.data = parameter.data.to(dtype)

    def narrowed(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        return output.to(dtype)

    base.get_input_embeddings().register_forward_hook(narrowed)
