"""Adapters that peft itself makes and saves, and what peft computes with them: the reference that serving is held to.

`make_adapter` fills a LoRA of any kind with random numbers that matter: each module's delta is about half as large as
what it is added to. `Reference` runs transformers' own class with peft's own layers on the weights that are served.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tunechat.serve.base.entry import BaseEntry

HALF_OF_BASE = 0.5
MAGNITUDE_NOISE = 0.1

# What peft can make of a linear, by a short name. `r` stands in each, so that a batch of them mixes ranks.
VARIANTS: dict[str, dict[str, Any]] = {
    "rank-1": {"r": 1, "lora_alpha": 1, "target_modules": "all-linear"},
    "rank-3": {"r": 3, "lora_alpha": 7, "target_modules": "all-linear"},
    "rank-8-few": {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]},
    "rank-16": {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"},
    "rank-64-rslora": {"r": 64, "lora_alpha": 16, "use_rslora": True, "target_modules": "all-linear"},
    "dora": {"r": 8, "lora_alpha": 16, "use_dora": True, "target_modules": "all-linear"},
    "dora-rslora": {"r": 3, "lora_alpha": 4, "use_dora": True, "use_rslora": True, "target_modules": "all-linear"},
    "patterns": {
        "r": 8,
        "lora_alpha": 8,
        "target_modules": "all-linear",
        "rank_pattern": {"layers.0.self_attn.q_proj": 3, r".*\.1\.self_attn\.v_proj": 16},
        "alpha_pattern": {"v_proj": 24, "layers.1.self_attn.q_proj": 2},
    },
    "head": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "lm_head"]},
    "one-layer": {"r": 4, "lora_alpha": 8, "target_modules": ["v_proj"], "layers_to_transform": [1]},
}

_FUSED = {
    "self_attn.q_proj": "self_attn.qkv_proj",
    "self_attn.k_proj": "self_attn.qkv_proj",
    "self_attn.v_proj": "self_attn.qkv_proj",
    "mlp.gate_proj": "mlp.gate_up_proj",
    "mlp.up_proj": "mlp.gate_up_proj",
}


def write_served(source: Path, entry_folder: Path, target: Path) -> Path:
    """The Hugging Face folder `source` with every matrix as the prepared entry serves it, dequantised to float32."""
    entry = BaseEntry.open(entry_folder)
    state = load_file(source / "model.safetensors")
    for name in entry.names():
        if f"{name}.weight" in state and name not in entry.manifest.linears and not name.endswith((".weight", ".bias")):
            state[f"{name}.weight"] = entry.weight(name).dequantize()
    taken: dict[str, int] = {}
    for name, (rows, _) in entry.manifest.linears.items():
        if f"{name}.weight" not in state:  # a head that is tied to the embedding
            continue
        kept = next((name.replace(part, whole) for part, whole in _FUSED.items() if name.endswith(part)), name)
        kept = kept if entry.has(kept) else name
        begin = taken.get(kept, 0)
        state[f"{name}.weight"] = entry.weight(kept).dequantize()[begin : begin + rows]
        taken[kept] = begin + rows
    target.mkdir(parents=True)
    save_file(
        {name: tensor.to(torch.float32).contiguous().clone() for name, tensor in state.items()},
        target / "model.safetensors",
        metadata={"format": "pt"},
    )
    config = json.loads((source / "config.json").read_text(encoding="utf-8")) | {"dtype": "float32"}
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return target


def make_adapter(
    model_folder: Path, target: Path, *, seed: int, dtype: torch.dtype = torch.float32, **config: Any
) -> Path:
    """A random adapter of the model in `model_folder`, made and saved by peft into `target`."""
    from peft import LoraConfig, get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft warns of tied heads; that is what some of them are for
        model = get_peft_model(read_model(model_folder), LoraConfig(task_type="CAUSAL_LM", **config))
        _randomise(model, torch.Generator().manual_seed(seed))
        for module in _lora_layers(model):
            for part in (module.lora_A, module.lora_B, module.lora_magnitude_vector):
                part.to(dtype)
        model.save_pretrained(target)
    return target


class Reference:
    """A transformers model with any number of peft adapters, which computes the logits of any use of them."""

    def __init__(self, model_folder: Path) -> None:
        self._model: nn.Module = read_model(model_folder)
        self._wrapped: Any = None
        self._names: dict[Path, str] = {}

    def logits(self, tokens: Sequence[int], uses: Sequence[tuple[Path, float]] = ()) -> Tensor:
        """Logits float32 [len(tokens), vocabulary] with the weighted sum of the deltas of the adapters in `uses`.

        A delta is what peft's layer gives with this adapter alone, less what the layer under it gives. For LoRA the sum
        is what peft's own `add_weighted_adapter` makes; for DoRA peft has no such sum.
        """
        names = [(self._name(folder), weight) for folder, weight in uses]
        with torch.inference_mode():
            ids = torch.tensor([list(tokens)])
            if self._wrapped is None:
                return self._model(ids).logits[0].to(torch.float32)  # type: ignore[no-any-return]
            layers = _lora_layers(self._wrapped)
            originals = [layer.forward for layer in layers]
            try:
                for layer, forward in zip(layers, originals, strict=True):
                    layer.forward = _summed(layer, forward, names)
                return self._wrapped(ids).logits[0].to(torch.float32)  # type: ignore[no-any-return]
            finally:
                for layer in layers:
                    del layer.forward

    def logits_of_weighted_adapter(self, tokens: Sequence[int], uses: Sequence[tuple[Path, float]]) -> Tensor:
        """The same by peft's `add_weighted_adapter`, which concatenates the LoRAs into one. Not for DoRA.

        peft 0.21 lets the first adapter decide how the whole is scaled, which is right for a plain LoRA only.
        """
        named = [(self._name(folder), weight) for folder, weight in uses]
        named.sort(key=lambda use: self._wrapped.peft_config[use[0]].use_rslora)
        names = [name for name, _ in named]
        self._wrapped.add_weighted_adapter(names, [weight for _, weight in named], "sum", combination_type="cat")
        self._wrapped.set_adapter("sum")
        with torch.inference_mode():
            logits: Tensor = self._wrapped(torch.tensor([list(tokens)])).logits[0]
        self._wrapped.set_adapter(names[0])
        self._wrapped.delete_adapter("sum")
        return logits

    def _name(self, folder: Path) -> str:
        """The name under which peft has the adapter, loaded on first use."""
        from peft import PeftModel

        if folder not in self._names:
            name = f"adapter{len(self._names)}"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if self._wrapped is None:
                    self._wrapped = PeftModel.from_pretrained(self._model, folder, adapter_name=name)
                else:
                    self._wrapped.load_adapter(folder, adapter_name=name)
            self._wrapped.eval()
            self._names[folder] = name
        return self._names[folder]


def read_model(folder: Path) -> Any:
    """The transformers model in `folder`, in float32, with the plainest attention."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()


def _lora_layers(model: nn.Module) -> list[Any]:
    from peft.tuners.lora import LoraLayer

    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def _summed(
    layer: Any, forward: Callable[..., Tensor], names: Sequence[tuple[str, float]]
) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        base: Tensor = layer.base_layer(x)
        total = base
        for name, weight in names:
            if name in layer.lora_A:
                layer.set_adapter(name)
                total = total + weight * (forward(x) - base)
        return total

    return run


def _randomise(model: nn.Module, generator: torch.Generator) -> None:
    """A and B such that B A x is about half of W x for inputs of any size; magnitudes near those of the base."""
    for layer in _lora_layers(model):
        name = "default"
        a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
        rank, columns = a.shape
        spread = layer.base_layer.weight.detach().float().std().item() * math.sqrt(columns)
        size = HALF_OF_BASE * spread / (abs(layer.scaling[name]) * math.sqrt(rank))
        with torch.no_grad():
            a.copy_(torch.randn(a.shape, generator=generator) / math.sqrt(columns))
            b.copy_(torch.randn(b.shape, generator=generator) * size)
            if name in layer.lora_magnitude_vector:
                magnitude = layer.lora_magnitude_vector[name].weight
                magnitude.mul_(1 + MAGNITUDE_NOISE * torch.randn(magnitude.shape, generator=generator))
