"""AdamW over the parameters that are trained, with its numbers under their names."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..serve.contract.errors import ConfigError, ModelError
from .chance import get_chance, set_chance
from .workers import Workers

_CHANCE = "chance"
_PLAIN = "adamw"
# What torch keeps of each parameter.
_NUMBERS = {"step", "exp_avg", "exp_avg_sq"}
_ANOTHER = "the checkpoint was made by another optimizer than the one that goes on"
_ALONE = Workers()
# Of bitsandbytes, by the names of recipes.
_CLASSES = {"adamw_8bit": "AdamW8bit", "paged_adamw": "PagedAdamW32bit", "paged_adamw_8bit": "PagedAdamW8bit"}


def optimizer_for(wanted: str, device: torch.device) -> str:
    """The optimizer that a recipe gets on `device`: AdamW whose numbers may leave the GPU, where there is one.

    Raises ConfigError for one that is not there.
    """
    has_others = importlib.util.find_spec("bitsandbytes") is not None
    if wanted == "auto":
        return "paged_adamw" if device.type == "cuda" and has_others else _PLAIN
    if wanted != _PLAIN and device.type != "cuda":
        raise ConfigError(f"optimizer: {wanted} runs on a GPU only; take optimizer=adamw.", param="optimizer")
    if wanted != _PLAIN and not has_others:
        raise ConfigError(
            f"optimizer: {wanted} needs the package bitsandbytes, which is not installed; take optimizer=adamw.",
            param="optimizer",
        )
    return wanted


class Optimizer:
    """AdamW (arXiv 1711.05101) over an explicit list of parameters, all on one device, and the state of chance.

    `kind` is what `optimizer_for` gives. The 8-bit kinds keep their two numbers a parameter in blocks of 256
    (arXiv 2110.02861), the paged ones in memory that moves between GPU and host. Vectors, such as norms, biases and
    the lengths that DoRA learns, do not shrink by `weight_decay`. Gradients are the sums over all `workers`.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        weight_decay: float,
        kind: str = _PLAIN,
        workers: Workers = _ALONE,
    ) -> None:
        self._workers = workers
        self._parameters = parameters
        self._device = next(iter(parameters.values())).device
        shrinking = [parameter for parameter in parameters.values() if parameter.dim() > 1]
        others = [parameter for parameter in parameters.values() if parameter.dim() <= 1]
        groups: list[dict[str, Any]] = [
            {"params": shrinking, "weight_decay": weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        self._adamw: Any
        if kind == _PLAIN:
            self._adamw = torch.optim.AdamW(groups, lr=0.0)
        else:
            import bitsandbytes

            self._adamw = getattr(bitsandbytes.optim, _CLASSES[kind])(groups, lr=0.0)
        self._is_plain = kind == _PLAIN

    def step(self, rate: float, max_norm: float) -> float:
        """One step by the gradients, which are then gone; gives their norm before it was cut to `max_norm` (0: not).

        Nothing is changed when the norm is not finite.
        """
        self._workers.sum_gradients(self._parameters.values())
        limit = max_norm or float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters.values(), limit))
        if norm == norm and norm != float("inf"):
            for group in self._adamw.param_groups:
                group["lr"] = rate
            self._adamw.step()
        self.forget()
        return norm

    def forget(self) -> None:
        """Drop the gradients."""
        self._adamw.zero_grad(set_to_none=True)

    @property
    def bytes_to_come(self) -> int:
        """What the first step will take in memory, 0 after it."""
        numbers = sum(p.numel() for p in self._parameters.values() if not self._adamw.state.get(p))
        return numbers * (2 if not self._is_plain and self._adamw.args.optim_bits == 8 else 8)

    def tensors(self) -> dict[str, Tensor]:
        """All that a later step depends on beside the parameters."""
        found = {
            f"{kind}.{name}": torch.as_tensor(value).detach().cpu().contiguous()
            for name, parameter in self._parameters.items()
            for kind, value in self._adamw.state[parameter].items()
        }
        return found | {_CHANCE: self._workers.gather(get_chance(self._device))}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Goes on from what `tensors` gave. Raises ModelError when they are those of other parameters."""
        set_chance(self._device, self._workers.own(tensors[_CHANCE], 1))
        found: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            kind, _, name = key.partition(".")
            if name:
                found.setdefault(name, {})[kind] = value
        if found.keys() != self._parameters.keys():
            raise ModelError("the checkpoint was made for other parameters than those that are trained")
        if self._is_plain:
            if any(state.keys() != _NUMBERS for state in found.values()):
                raise ModelError(_ANOTHER)
            for name, parameter in self._parameters.items():
                # The count of steps stays on the CPU, as AdamW keeps it.
                self._adamw.state[parameter] = {
                    kind: value if kind == "step" else value.to(parameter.device) for kind, value in found[name].items()
                }
        else:
            self._fill(found)

    @torch.no_grad()
    def _fill(self, found: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Copies into what bitsandbytes makes itself: pages are no memory that torch could give it."""
        names = {id(parameter): name for name, parameter in self._parameters.items()}
        for number, group in enumerate(self._adamw.param_groups):
            for place, parameter in enumerate(group["params"]):
                self._adamw.init_state(group, parameter, number, place)
                state, saved = self._adamw.state[parameter], found[names[id(parameter)]]
                if state.keys() != saved.keys():
                    raise ModelError(_ANOTHER)
                for kind, value in saved.items():
                    if isinstance(state[kind], Tensor):
                        if state[kind].dtype != value.dtype or state[kind].shape != value.shape:
                            raise ModelError(_ANOTHER)
                        state[kind].copy_(value)
                    else:
                        state[kind] = int(value)
