"""A whole model that learns, from the unquantised base: every matrix, embedding, norm and bias of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..serve.base.entry import CONFIG, MANIFEST, WEIGHTS, BaseEntry
from ..serve.base.hf_checkpoint import HfCheckpoint
from ..serve.base.model_folder import WrittenModel, write_model
from ..serve.base.publish import publishing
from ..serve.base.served_tensors import ServedTensors
from ..serve.contract.adapters import AdapterOrigin
from ..serve.contract.errors import ModelError
from .attention import ISOLATED, register
from .checkpoint import CARD, MODEL, Checkpoint
from .computing import Computing
from .model import Made, TrainedModel

_WRITTEN = frozenset({torch.float16, torch.bfloat16})


class FullModel(TrainedModel):
    """The causal LM of the entry with all its parameters as float32 copies of its own. Tied ones stay tied."""

    def __init__(self, entry: BaseEntry, name: str, computing: Computing | None = None) -> None:
        """The folder that is made in the end is called `name`, and so is the model when it is served.

        Raises ModelError for an entry that is quantised, that its class does not fit, or as TrainedModel does.
        """
        if entry.manifest.quant != "none":
            raise ModelError(f"{entry.manifest.name} is quantised; whole models are trained on unquantised weights")
        computing = computing or Computing()
        register()
        base = _unfrozen(entry, computing.device)
        self._precise = computing.dtype == torch.float32
        self._ready = False
        super().__init__(base, computing)
        self._ready = True
        self._name = name
        self._dtype = main_type(entry)
        self._config = entry.config
        self._files = {
            name: (entry.folder / name).read_bytes()
            for name in entry.manifest.files
            if name not in (CONFIG, WEIGHTS, MANIFEST)
        }
        self._train(base.named_parameters())

    def product(self, origin: AdapterOrigin, card: str) -> ModelProduct:
        files = self._files | {CARD: card.encode()}
        return ModelProduct(self.parameters, self._config, files, torch.float32)

    def publish(self, checkpoint: Checkpoint, folder: Path) -> Made:
        """A model folder in the type of the base, as `folder/model/NAME`."""
        target = folder / MODEL / self._name
        publish_model(checkpoint.folder / MODEL, target, self._dtype)
        return Made(model=str(target))

    def load(self, checkpoint: Checkpoint) -> None:
        found = checkpoint.tensors()
        if {name: tensor.shape for name, tensor in found.items()} != {n: p.shape for n, p in self.parameters.items()}:
            raise ModelError("the model of the checkpoint has other tensors than the one that is trained")
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(found[name])

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        """Products of bfloat16, while the numbers that learn stay whole."""
        if self._precise or not self._ready:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.computing.dtype)


@dataclass(frozen=True, slots=True)
class ModelProduct:
    """A model folder, as transformers opens it and `tunechat serve PATH` serves it."""

    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]
    files: Mapping[str, bytes]
    dtype: torch.dtype

    @property
    def name(self) -> str:
        return MODEL

    def write(self, folder: Path) -> None:
        shapes = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
        made: Callable[[str], Tensor] = lambda name: self.tensors[name].detach().cpu()  # noqa: E731
        write_model(folder, WrittenModel(self.config, shapes, made, self.dtype, self.files), lambda done: None)


def main_type(entry: BaseEntry) -> torch.dtype:
    """The type that most numbers of the entry are kept in, where models are written in it; else float32."""
    source = ServedTensors(entry)
    largest = max(source.names, key=lambda name: torch.Size(source.shape(name)).numel())
    dtype = source.tensor(largest).dtype
    return dtype if dtype in _WRITTEN else torch.float32


def publish_model(checkpoint: Path, target: Path, dtype: torch.dtype) -> None:
    """Writes the model folder `checkpoint` once more at `target`, its numbers in `dtype`: whole or not at all.

    One tensor is in memory at a time. Raises ModelError naming the tensor that `dtype` cannot hold.
    """
    source = HfCheckpoint(checkpoint)
    others = {p.name for p in checkpoint.iterdir()} - {"config.json", "model.safetensors.index.json"}
    files = {name: (checkpoint / name).read_bytes() for name in others if not name.endswith(".safetensors")}
    target.parent.mkdir(exist_ok=True)
    with publishing(target) as staged:
        ModelProduct(_Lazily(source), source.config, files, dtype).write(staged)


class _Lazily(Mapping[str, Tensor]):
    """The tensors of a checkpoint, which are mapped."""

    def __init__(self, source: HfCheckpoint) -> None:
        self._source = source

    def __getitem__(self, name: str) -> Tensor:
        return self._source.tensor(name)

    def __iter__(self) -> Any:
        return iter(self._source.names)

    def __len__(self) -> int:
        return len(self._source.names)


def _unfrozen(entry: BaseEntry, device: torch.device) -> Any:
    """The class of the entry's config over float32 copies of its weights."""
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(entry.folder, trust_remote_code=False)
    config._attn_implementation = ISOLATED
    with init_empty_weights(include_buffers=False):
        model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    weights = ServedTensors(entry)
    model.tie_weights()
    for path, parameter in list(model.named_parameters()):
        if path not in weights.names or weights.shape(path) != tuple(parameter.shape):
            raise ModelError(f"{entry.manifest.name} has no tensor {path} of shape {tuple(parameter.shape)}")
        owner, _, leaf = path.rpartition(".")
        numbers = weights.tensor(path).to(device=device, dtype=torch.float32, copy=True)
        setattr(model.get_submodule(owner), leaf, nn.Parameter(numbers))
    model.tie_weights()
    return model.to(device).eval()
