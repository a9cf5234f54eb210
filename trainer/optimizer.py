"""AdamW over the parameters that are trained, with its numbers under their names."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..serve.contract.errors import ModelError

_CHANCE = "chance"


class Optimizer:
    """torch's AdamW over an explicit list of parameters, and the state of chance beside it."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], weight_decay: float) -> None:
        self._parameters = parameters
        self._adamw = torch.optim.AdamW(list(parameters.values()), lr=0.0, weight_decay=weight_decay)

    def step(self, rate: float, max_norm: float) -> float:
        """One step by the gradients, which are then gone; gives their norm before it was cut to `max_norm` (0: not).

        Nothing is changed when the norm is not finite.
        """
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

    def tensors(self) -> dict[str, Tensor]:
        """All that a later step depends on beside the parameters."""
        found = {
            f"{kind}.{name}": value.detach().cpu().contiguous()
            for name, parameter in self._parameters.items()
            for kind, value in self._adamw.state[parameter].items()
        }
        return found | {_CHANCE: torch.random.get_rng_state()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Goes on from what `tensors` gave. Raises ModelError when they are those of other parameters."""
        torch.random.set_rng_state(tensors[_CHANCE])
        found: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            kind, _, name = key.partition(".")
            if name:
                found.setdefault(name, {})[kind] = value
        if found.keys() != self._parameters.keys():
            raise ModelError("the checkpoint was made for other parameters than those that are trained")
        for name, parameter in self._parameters.items():
            # The count of steps stays on the CPU, as AdamW keeps it.
            self._adamw.state[parameter] = {
                kind: value if kind == "step" else value.to(parameter.device) for kind, value in found[name].items()
            }
