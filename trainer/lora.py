"""An adapter over the linear modules of a frozen base: PEFT puts it there, and its files are PEFT's."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..serve.base.linear import Linear4bit
from ..serve.contract.base import BaseManifest
from ..serve.contract.errors import ConfigError, ModelError
from .recipe import Recipe

ALL_LINEAR = "all-linear"
_HEADS = frozenset({"lm_head", "embed_out", "output"})


@dataclass(frozen=True, slots=True)
class LoraPlan:
    """What is put where: `targets` are the ends of names of linears, or `all-linear`, which spares the head."""

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    rslora: bool = False
    dora: bool = False
    targets: tuple[str, ...] = (ALL_LINEAR,)


def plan_of(recipe: Recipe) -> LoraPlan:
    """What a complete recipe asks for."""
    return LoraPlan(recipe.rank, recipe.alpha, recipe.dropout, recipe.rslora, recipe.method == "dora", recipe.targets)


class AdaptableLinear(Linear4bit):
    """A frozen linear that PEFT can put an adapter over."""

    @property
    def qweight(self) -> Tensor:
        """Tells PEFT the device, and that no type follows from the weight: the adapter stays float32."""
        packed = next(self.buffers())
        return torch.empty(0, dtype=torch.uint8, device=packed.device)


class DequantizingLinear(AdaptableLinear):
    """One whose weight PEFT can read, which DoRA needs: it is made anew, float32, each time it is asked for."""

    @property
    def weight(self) -> Tensor:
        return self.dequantize()


def linear_class(plan: LoraPlan) -> type[AdaptableLinear]:
    """What the base's linears have to be, so that `inject` can follow the plan."""
    return DequantizingLinear if plan.dora else AdaptableLinear


def targets_of(plan: LoraPlan, manifest: BaseManifest) -> list[str]:
    """The ends of the names of all modules that get an adapter. Raises ConfigError for one that the base lacks."""
    known = sorted({name.rpartition(".")[2] for name in manifest.linears})
    wanted: set[str] = set()
    for target in plan.targets:
        if target == ALL_LINEAR:
            wanted |= {name for name in known if name not in _HEADS}
        elif any(name == target or name.endswith(f".{target}") for name in manifest.linears):
            wanted.add(target)
        else:
            raise ConfigError(
                f"targets: {manifest.name} has no linear module {target!r}; it has {', '.join(known)}", param="targets"
            )
    if not wanted:
        raise ModelError(f"{manifest.name} has no linear modules that an adapter can change")
    return sorted(wanted)


def inject(model: Any, plan: LoraPlan, manifest: BaseManifest) -> Any:
    """PEFT's wrapper around `model`, whose targets have an adapter that changes nothing yet. Numbers are float32."""
    from peft import LoraConfig, get_peft_model

    alpha = int(plan.alpha) if float(plan.alpha).is_integer() else plan.alpha
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=plan.rank,
        lora_alpha=alpha,
        lora_dropout=plan.dropout,
        use_rslora=plan.rslora,
        use_dora=plan.dora,
        target_modules=targets_of(plan, manifest),
        base_model_name_or_path=manifest.name,
    )
    config._register_custom_module({AdaptableLinear: _layer_class()})
    with warnings.catch_warnings():
        # PEFT warns of tied heads and calls what transformers is about to rename.
        warnings.simplefilter("ignore")
        wrapped = get_peft_model(model, config)
    wrapped.peft_config["default"].base_model_name_or_path = manifest.name
    return wrapped.eval()


def adapter_state(wrapped: Any) -> dict[str, Tensor]:
    """The adapter's tensors under PEFT's names, on the CPU. The base is never asked for, nor any hub."""
    from peft import get_peft_model_state_dict

    found = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(found.items())}


def load_adapter(wrapped: Any, tensors: dict[str, Tensor]) -> None:
    """Gives the adapter these numbers. Raises ModelError when names or shapes are others."""
    present = adapter_state(wrapped)
    if {name: tensor.shape for name, tensor in present.items()} != {n: t.shape for n, t in tensors.items()}:
        raise ModelError("the adapter of the checkpoint has other modules or another rank than this training")
    from peft import set_peft_model_state_dict

    with torch.no_grad():
        set_peft_model_state_dict(wrapped, tensors)


@functools.cache
def _layer_class() -> type:
    """PEFT's linear LoRA layer over our frozen one. PEFT itself only knows layers that hold a `weight`."""
    from peft.tuners.lora.layer import Linear as LoraLinear

    class LoraOverFrozen(LoraLinear):  # type: ignore[misc]
        """Adds `scaling * B(A(x))` to what the frozen layer gives, and is never merged into it."""

        def merge(self, *_: Any, **__: Any) -> None:
            raise ModelError("an adapter is not merged into packed weights; `tunechat adapters export` writes a model")

    return LoraOverFrozen
