"""The state of chance of this process: what is left out at random follows from it."""

from __future__ import annotations

import torch
from torch import Tensor


def get_chance(device: torch.device) -> Tensor:
    """uint8: the state of the CPU's generator, and behind it of the one of `device`, where that has its own."""
    state = torch.random.get_rng_state()
    return state if device.type != "cuda" else torch.cat([state, torch.cuda.get_rng_state(device)])


def set_chance(device: torch.device, state: Tensor) -> None:
    """Puts back what `get_chance` gave, on any device: what is there of another generator is left out."""
    size = torch.random.get_rng_state().numel()
    # Generators read from where the memory of a tensor begins, not from where a view of it does.
    torch.random.set_rng_state(state[:size].clone())
    if device.type == "cuda" and state.numel() > size:
        torch.cuda.set_rng_state(state[size:].clone(), device)
