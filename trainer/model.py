"""A model while it is trained, whatever of it is trained: the loss of a row, and its gradients."""

from __future__ import annotations

import contextlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..serve.contract.adapters import AdapterOrigin
from ..serve.contract.errors import ModelError
from .attention import FLASH, ISOLATED, Samples, attend_to
from .checkpoint import Checkpoint, Product
from .computing import Computing
from .data.row import Row

# Positions whose logits are in memory at once, forwards and backwards.
CHUNK = 128
# Of logits that were computed in two ways, in standard deviations. Sums of another order are all that may differ.
_TOLERANCE = {"cpu": 1e-3, "cuda": 0.05}


@dataclass(frozen=True, slots=True)
class Made:
    """Where the result lies: the PEFT folder of an adapter, or a model folder; the other is empty."""

    adapter: str = ""
    model: str = ""


class TrainedModel(ABC):
    """A causal LM some of whose parameters learn. Rows of several samples are computed as if each stood alone.

    Raises ModelError for a class whose logits are more than its head's product with what its last norm gives.

    The base is in evaluation mode all the time: what it would leave out at random, it does not. `parameters` are those
    that are trained, by name, in the order of their names: the same in every process. `isolates` says whether samples
    may share a row; where they may not, each is computed alone.
    """

    def __init__(self, base: Any, computing: Computing) -> None:
        self.device = computing.device
        self.computing = computing
        self.parameters: dict[str, nn.Parameter] = {}
        self._samples = Samples()
        self._base: Any = base
        self._body: Any = base.base_model
        self._head: Any = base.get_output_embeddings()
        self._softcap = float(getattr(base.config.get_text_config(), "final_logit_softcapping", None) or 0.0)
        attend_to(base, self._samples)
        self.isolates = True
        self.isolates = self._keeps_samples_apart()
        if not self.isolates:
            base.set_attn_implementation("eager")
        elif computing.attention == "flash":
            base.set_attn_implementation(FLASH)
        self._twice: list[nn.Module] = []
        self._random: list[nn.Module] = []

    @abstractmethod
    def product(self, origin: AdapterOrigin, card: str) -> Product:
        """What is trained as it stands, for a checkpoint; `origin` and `card` say how it was made."""

    @abstractmethod
    def publish(self, checkpoint: Checkpoint, folder: Path) -> Made:
        """What comes out of a training whose best checkpoint is this one; made under `folder`, if it is made anew."""

    @abstractmethod
    def load(self, checkpoint: Checkpoint) -> None:
        """Gives the trained parameters the numbers of a checkpoint. Raises ModelError when it is of other ones."""

    def learn(self, row: Row, scale: float) -> float:
        """Adds the gradients of `scale` times the row's loss to the parameters; gives the loss, unscaled.

        The loss is the sum over the learned tokens of weight times cross-entropy. Logits are made only where something
        is learned, `CHUNK` of them at a time.
        """
        places, targets, weights = self._learned(row)
        with self._learning():
            hidden = self._hidden(row)[places]
            leaf = hidden.detach().requires_grad_()
            total = torch.zeros((), device=self.device)
            for start in range(0, len(places), CHUNK):
                part = slice(start, start + CHUNK)
                loss = self._loss(leaf[part], targets[part], weights[part])
                torch.autograd.backward(loss * scale)
                total += loss.detach()
            if leaf.grad is not None:
                torch.autograd.backward(hidden, leaf.grad)
        return float(total)

    @torch.no_grad()
    def measure(self, row: Row) -> float:
        """The row's loss, as `learn` gives it; nothing is learned and nothing left out at random."""
        places, targets, weights = self._learned(row)
        hidden = self._hidden(row)[places]
        parts = (slice(start, start + CHUNK) for start in range(0, len(places), CHUNK))
        return float(sum(self._loss(hidden[part], targets[part], weights[part]) for part in parts))

    def _train(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Takes all of `parameters` that want gradients as those that learn. The last step of making a model."""
        self.parameters = {name: parameter for name, parameter in sorted(parameters) if parameter.requires_grad}
        if self.computing.checkpointing:
            # Newer releases of transformers have another name for it.
            enable = getattr(self._base, "activation_checkpointing_enable", None)
            (enable or self._base.gradient_checkpointing_enable)({"use_reentrant": False})
            self._twice = [m for m in self._base.modules() if getattr(m, "gradient_checkpointing", False)]

    def _hidden(self, row: Row) -> Tensor:
        """What the last norm gives, float32 [n, hidden size]."""
        if self.isolates or len(row.lengths) == 1:
            return self._together(row.tokens, row.positions, row.lengths)
        ends = list(itertools.accumulate(row.lengths))
        alone = [
            self._together(row.tokens[end - length : end], row.positions[end - length : end], (length,))
            for length, end in zip(row.lengths, ends, strict=True)
        ]
        return torch.cat(alone)

    def _together(self, tokens: NDArray[np.int32], positions: NDArray[np.int32], lengths: tuple[int, ...]) -> Tensor:
        self._samples.lengths = lengths
        with self._precision():
            output = self._body(
                input_ids=torch.from_numpy(tokens).long().unsqueeze(0).to(self.device),
                position_ids=torch.from_numpy(positions).long().unsqueeze(0).to(self.device),
                use_cache=False,
            )
        hidden: Tensor = output.last_hidden_state[0]
        return hidden.float()

    def _learned(self, row: Row) -> tuple[Tensor, Tensor, Tensor]:
        """For each learned token: the place it is predicted at, the token, its weight."""
        weights = torch.from_numpy(row.weights)
        at = weights.nonzero().squeeze(1)
        tokens = torch.from_numpy(row.tokens).long()
        return (at - 1).to(self.device), tokens[at].to(self.device), weights[at].to(self.device)

    def _loss(self, hidden: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        losses = cross_entropy(self._logits(hidden), targets, reduction="none")
        return (losses * weights).sum()

    def _logits(self, hidden: Tensor) -> Tensor:
        with self._precision():
            logits: Tensor = self._head(hidden).float()
        return self._softcap * torch.tanh(logits / self._softcap) if self._softcap else logits

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        """In which the base computes, where its numbers do not say so."""
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def _learning(self) -> Iterator[None]:
        """Leaves inputs of the adapter out at random meanwhile, and computes twice; the base is not touched."""
        modules = (*self._random, *self._twice)
        for module in modules:
            module.training = True
        try:
            yield
        finally:
            for module in modules:
                module.training = False

    @torch.no_grad()
    def _keeps_samples_apart(self) -> bool:
        """Whether two samples in one row have the logits that each has alone by the class's own attention.

        Raises ModelError when those of one alone are not the class's own.
        """
        config = self._base.config.get_text_config()
        window = getattr(config, "sliding_window", None) or 0
        lengths = (8, min(max(16, 2 * int(window)), 64))
        tokens = (np.arange(sum(lengths), dtype=np.int32) * 7 + 3) % int(config.vocab_size)
        packed = self._logits(self._hidden(Row(tokens, np.zeros(len(tokens), dtype=np.float32), lengths)))
        self._base.set_attn_implementation("eager")
        ids = torch.from_numpy(tokens).long().to(self.device)
        parts = [part[None] for part in torch.split(ids, list(lengths))]
        own = torch.cat([self._base(input_ids=part, use_cache=False).logits[0] for part in parts]).float()
        hidden = [self._body(input_ids=part, use_cache=False).last_hidden_state[0] for part in parts]
        ours = self._logits(torch.cat(hidden).float())
        self._base.set_attn_implementation(ISOLATED)
        limit = _TOLERANCE.get(self.device.type, _TOLERANCE["cuda"]) * own.std()
        if not (ours - own).abs().max() < limit:
            raise ModelError(f"{type(self._base).__name__} computes its logits in a way that is not trained here")
        return bool((packed - own).abs().max() < limit)
