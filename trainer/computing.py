"""How the numbers of a training are computed: where, in which precision, by which attention."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import torch

from ..serve.contract.errors import ConfigError
from .recipe import Recipe

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Computing:
    """`dtype` is that of hidden states and products; what is trained is float32 whatever it is.

    `attention` is "sdpa" or "flash". `checkpointing` computes each layer a second time instead of keeping it.
    """

    device: torch.device = CPU
    dtype: torch.dtype = torch.float32
    attention: str = "sdpa"
    checkpointing: bool = True


def computing_of(recipe: Recipe, place: int = 0) -> Computing:
    """What the recipe asks for, on GPU number `place` where it is on one; `auto` is what fits this machine.

    Raises ConfigError, whose `param` is the key, for what is not there.
    """
    device = _device(recipe.device, place)
    dtype = _dtype(recipe.precision, device)
    return Computing(device, dtype, _attention(recipe.attention, device, dtype), recipe.gradient_checkpointing)


def _device(wanted: str, place: int) -> torch.device:
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return CPU
    if not torch.cuda.is_available():
        raise ConfigError("device: there is no usable GPU; take device=cpu or leave it out.", param="device")
    if place >= (count := torch.cuda.device_count()):
        raise ConfigError(
            f"processes: each process needs a GPU of its own, and there are {count}; take processes={count}.",
            param="processes",
        )
    return torch.device("cuda", place)


def _dtype(wanted: str, device: torch.device) -> torch.dtype:
    has_it = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if wanted == "float32" or (wanted == "auto" and not has_it):
        return torch.float32
    if device.type == "cuda" and not has_it:
        raise ConfigError(
            "precision: this GPU has no bfloat16; take precision=float32 or leave it out.", param="precision"
        )
    return torch.bfloat16


def _attention(wanted: str, device: torch.device, dtype: torch.dtype) -> str:
    reasons = []
    if importlib.util.find_spec("flash_attn") is None:
        reasons.append("the package flash-attn is not installed")
    if device.type != "cuda":
        reasons.append("it runs on a GPU only")
    elif torch.cuda.get_device_capability(device) < (8, 0):
        reasons.append("this GPU is older than it asks for")
    if dtype is not torch.bfloat16:
        reasons.append("it computes in bfloat16 only")
    if wanted == "flash" and reasons:
        raise ConfigError(
            f"attention: FlashAttention cannot be used ({'; '.join(reasons)}); take attention=sdpa or leave it out.",
            param="attention",
        )
    return "sdpa" if wanted == "sdpa" or reasons else "flash"
