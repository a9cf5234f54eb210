"""The model while it is trained: the served base as it is, an adapter over it, and the loss of a row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ..serve.base.architecture import architecture_of
from ..serve.base.entry import BaseEntry
from ..serve.base.mapped_class import build_class
from ..serve.contract.errors import ModelError
from .attention import ISOLATED, Samples, attend_to, isolated_attention
from .data.row import Row
from .lora import LoraPlan, adapter_state, inject, linear_class, load_adapter

# Positions whose logits are in memory at once, forwards and backwards.
CHUNK = 128
_TOLERANCE = 1e-3


class TrainedModel:
    """A frozen base with an adapter that learns. Rows of several samples are computed as if each stood alone.

    The base is in evaluation mode all the time: what it would leave out at random, it does not. `parameters` are those
    that are trained, by name, in the order of their names.
    """

    def __init__(self, entry: BaseEntry, plan: LoraPlan, device: torch.device, *, checkpointing: bool = True) -> None:
        """Raises ModelError when the class computes something else over isolated samples than by its own attention."""
        from transformers import AttentionInterface

        AttentionInterface.register(ISOLATED, isolated_attention)
        self.device = device
        self._samples = Samples()
        base = build_class(entry, device, ISOLATED, linear_class(plan))
        attend_to(base, self._samples)
        self._base: Any = base
        self._body: Any = base.base_model
        self._softcap = float(getattr(base.config.get_text_config(), "final_logit_softcapping", None) or 0.0)
        self._check_isolation(architecture_of(entry.config))
        self._wrapped = inject(base, plan, entry.manifest)
        self._head: Any = base.get_output_embeddings()
        self.parameters: dict[str, nn.Parameter] = {
            name: parameter for name, parameter in sorted(self._wrapped.named_parameters()) if parameter.requires_grad
        }
        self._layers: list[nn.Module] = []
        if checkpointing:
            # Newer releases of transformers have another name for it.
            enable = getattr(base, "activation_checkpointing_enable", None) or base.gradient_checkpointing_enable
            enable({"use_reentrant": False})
            self._layers = [module for module in base.modules() if getattr(module, "gradient_checkpointing", False)]
        self._random = self._random_modules() if plan.dropout else []

    def learn(self, row: Row, scale: float) -> float:
        """Adds the gradients of `scale` times the row's loss to the parameters; gives the loss, unscaled.

        The loss is the sum over the learned tokens of weight times cross-entropy. Logits are made only where something
        is learned, `CHUNK` of them at a time.
        """
        places, targets, weights = self._learned(row)
        self._set_training(True)
        try:
            hidden = self._hidden(row)[places]
            leaf = hidden.detach().requires_grad_()
            total = torch.zeros((), device=self.device)
            for start in range(0, len(places), CHUNK):
                part = slice(start, start + CHUNK)
                loss = self._loss(leaf[part], targets[part], weights[part])
                torch.autograd.backward(loss * scale)
                total += loss.detach()
            torch.autograd.backward(hidden, leaf.grad)
        finally:
            self._set_training(False)
        return float(total)

    @torch.no_grad()
    def measure(self, row: Row) -> float:
        """The row's loss, as `learn` gives it; nothing is learned and nothing left out at random."""
        places, targets, weights = self._learned(row)
        hidden = self._hidden(row)[places]
        parts = (slice(start, start + CHUNK) for start in range(0, len(places), CHUNK))
        return float(sum(self._loss(hidden[part], targets[part], weights[part]) for part in parts))

    def adapter(self) -> dict[str, Tensor]:
        """The adapter's tensors under PEFT's names."""
        return adapter_state(self._wrapped)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Gives the adapter these numbers. Raises ModelError when they are not those of such an adapter."""
        load_adapter(self._wrapped, tensors)

    @property
    def adapter_config(self) -> dict[str, Any]:
        """The content of PEFT's `adapter_config.json`."""
        config: dict[str, Any] = self._wrapped.peft_config["default"].to_dict()
        plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
        return plain | {"inference_mode": True}

    def _hidden(self, row: Row) -> Tensor:
        """What the last norm gives, float32 [n, hidden size]."""
        self._samples.lengths = row.lengths
        output = self._body(
            input_ids=torch.from_numpy(row.tokens).long().unsqueeze(0).to(self.device),
            position_ids=torch.from_numpy(row.positions).long().unsqueeze(0).to(self.device),
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
        logits: Tensor = self._head(hidden).float()
        return self._softcap * torch.tanh(logits / self._softcap) if self._softcap else logits

    def _random_modules(self) -> list[nn.Module]:
        """What has to know that it learns, for the adapter to leave inputs out at random."""
        from peft.tuners.lora import LoraLayer

        layers = [module for module in self._wrapped.modules() if isinstance(module, LoraLayer)]
        return [part for layer in layers for part in (layer, *layer.lora_dropout.values())]

    def _set_training(self, training: bool) -> None:
        """Switches what is left out at random in the adapter, and computing twice, without touching the base."""
        for module in (*self._random, *self._layers):
            module.training = training

    @torch.no_grad()
    def _check_isolation(self, name: str) -> None:
        """Compares two samples in one row with each alone by the class's own attention and head."""
        import numpy as np

        vocabulary = int(self._base.config.get_text_config().vocab_size)
        window = getattr(self._base.config.get_text_config(), "sliding_window", None) or 0
        lengths = (8, min(max(16, 2 * int(window)), 64))
        tokens = (np.arange(sum(lengths), dtype=np.int32) * 7 + 3) % vocabulary
        self._head = self._base.get_output_embeddings()
        ours = self._logits(self._hidden(Row(tokens, np.zeros(len(tokens), dtype=np.float32), lengths)))
        self._base.set_attn_implementation("eager")
        ids = torch.from_numpy(tokens).long().to(self.device)
        alone = [
            self._base(input_ids=part[None], use_cache=False).logits[0] for part in torch.split(ids, list(lengths))
        ]
        self._base.set_attn_implementation(ISOLATED)
        reference = torch.cat(alone).float()
        worst = float((ours - reference).abs().max() / reference.std())
        if not worst < (_TOLERANCE if self.device.type == "cpu" else 0.05):
            raise ModelError(
                f"{name} does not give the same logits for samples side by side as for each alone (they differ by "
                f"{worst:.2g} standard deviations), so it cannot be trained right"
            )
