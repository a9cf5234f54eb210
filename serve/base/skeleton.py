"""The parameters of a transformers class, told without memory for them: which are linears, which are tied."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..contract.errors import ModelError
from .architecture import architecture_of
from .checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Skeleton:
    """`shapes` of the state dict, names of the `linears` inside decoder layers, and what may be `tied` or `ignored`.

    `modules` has the [rows, columns] of all linear modules, those outside the layers included.
    """

    name: str
    prefix: str
    shapes: Mapping[str, tuple[int, ...]]
    linears: frozenset[str]
    modules: Mapping[str, tuple[int, int]]
    tied: frozenset[str]
    ignored: tuple[str, ...]

    def sources(self, checkpoint: Checkpoint) -> dict[str, str]:
        """For each name of the state dict that has a tensor of its own, the checkpoint's name of it.

        Checkpoints of a bare model lack the prefix. Raises ModelError naming what is missing, left over or misshapen:
        a model with other tensors than its class computes something else.
        """
        found: dict[str, str] = {}
        missing: list[str] = []
        for name, shape in self.shapes.items():
            if name in self.tied:
                continue
            source = next((n for n in (name, name.removeprefix(f"{self.prefix}.")) if n in checkpoint.names), None)
            if source is None:
                missing.append(name)
            elif checkpoint.shape(source) != shape:
                raise ModelError(f"{source} has shape {checkpoint.shape(source)} where {self.name} has {shape}")
            else:
                found[name] = source
        if missing:
            raise ModelError(f"the model's files lack {_some(missing)}, which {self.name} needs")
        extra = [n for n in checkpoint.names if n not in set(found.values()) and not self._is_ignored(n)]
        if extra:
            raise ModelError(f"the model's files hold {_some(extra)}, which {self.name} does not know")
        return found

    def _is_ignored(self, name: str) -> bool:
        if name in self.tied:
            return True
        return any(re.search(pattern, name) for pattern in self.ignored)


# Buffers that older releases of transformers wrote into checkpoints.
_OLD_BUFFERS = (r"rotary_emb\.inv_freq$", r"\.attn\.(masked_)?bias$", r"\.attention\.(masked_)?bias$")


def skeleton_of(config: Mapping[str, Any]) -> Skeleton:
    """The skeleton of the class that `config` names. Raises ModelError when transformers has none."""
    from transformers import AutoConfig, AutoModelForCausalLM

    name = architecture_of(config)
    values = {key: value for key, value in config.items() if key not in {"model_type", "auto_map"}}
    try:
        settings = AutoConfig.for_model(str(config.get("model_type", "")), **values)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(settings, trust_remote_code=False)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"transformers cannot build {name} from its config.json: {error}") from error
    if type(model).__name__ != name:
        raise ModelError(f"config.json names {name}, but transformers builds {type(model).__name__} from it")
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    return Skeleton(
        name=name,
        prefix=str(model.base_model_prefix),
        shapes={key: tuple(value.shape) for key, value in model.state_dict().items()},
        linears=frozenset(_layer_linears(model)),
        modules={
            path: (module.out_features, module.in_features)
            for path, module in model.named_modules()
            if isinstance(module, nn.Linear)
        },
        tied=frozenset(tied if getattr(settings, "tie_word_embeddings", False) else ()),
        ignored=(*_OLD_BUFFERS, *(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ())),
    )


def _layer_linears(model: nn.Module) -> Iterable[str]:
    """Linears inside a numbered layer. What stands before or after the layers is small or sensitive to rounding."""
    for path, module in model.named_modules():
        if isinstance(module, nn.Linear) and any(part.isdigit() for part in path.split(".")):
            yield path


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"
