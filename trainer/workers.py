"""The processes that train one model together: who this one is, and what they tell one another.

Each holds a replica of the whole model and computes other batches of a step. There is no DistributedDataParallel around
the model: it wants one forward and one backward a step, and the loss here runs backwards in pieces; it broadcasts
buffers, which a base that is mapped read-only cannot take; and it takes means over processes, where a step counts every
trained token alike. So the gradients of what is trained are summed, once a step, and nothing else is shared.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..serve.contract.errors import ConfigError, TunechatError

Item = TypeVar("Item")
STORE = "workers.store"
# Of one another's gradients, numbers at a time.
_BUCKET = 1 << 24
# The longest that one waits for the others: they may wait for requests to end, and one of them writes checkpoints.
_PATIENCE = timedelta(hours=1)


class LostWorker(TunechatError):
    """Another process of the same training is gone."""

    code = "worker_lost"
    http_status = 500


@dataclass(frozen=True, slots=True)
class Workers:
    """This process is number `rank` of `size`; number `local` on its machine. Each method is called by all at once.

    Raises LostWorker where one of them is gone.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the one that speaks and saves."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """This process's part of what is to be done."""
        return items[self.rank :: self.size]

    def total(self, value: float) -> float:
        """The sum of all values."""
        if self.size == 1:
            return value
        found = torch.tensor(value, dtype=torch.float64)
        self._together(lambda: torch.distributed.all_reduce(found))
        return float(found)

    def any(self, value: bool) -> bool:
        """Whether any of them says so."""
        return self.total(float(value)) > 0

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Gives each parameter the sum of its gradients; one that has none counts as zero."""
        if self.size == 1:
            return
        bucket: list[nn.Parameter] = []
        for parameter in parameters:
            if bucket and sum(one.numel() for one in bucket) + parameter.numel() > _BUCKET:
                self._sum(bucket)
                bucket = []
            bucket.append(parameter)
        if bucket:
            self._sum(bucket)

    def gather(self, value: Tensor) -> Tensor:
        """The values of all, [size, ...]; of one alone as it is."""
        if self.size == 1:
            return value
        found = [torch.empty_like(value) for _ in range(self.size)]
        self._together(lambda: torch.distributed.all_gather(found, value))
        return torch.stack(found)

    def own(self, values: Tensor, dimensions: int) -> Tensor:
        """This process's part of what was gathered from tensors of so many dimensions, by however many processes."""
        return values if values.dim() == dimensions else values[self.rank % len(values)]

    def _sum(self, bucket: list[nn.Parameter]) -> None:
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        self._together(lambda: torch.distributed.all_reduce(flat))
        for parameter, part in zip(bucket, torch.split(flat, [p.numel() for p in bucket]), strict=True):
            parameter.grad = part.view_as(parameter)

    def _together(self, call: Callable[[], object]) -> None:
        try:
            call()
        except RuntimeError as error:
            raise LostWorker(
                "Another process of this training ended before its time; what it said stands in the log."
            ) from error


def join_workers(folder: Path, expected: int) -> Workers:
    """Finds the others, by the environment that torchrun and `launch` give each process; alone without one.

    `folder` is the training's own: the processes of one machine meet by a file in it where no address was given.
    Raises ConfigError when there are others than the `expected` number of processes.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size != expected:
        raise ConfigError(
            f"processes: {size} were started for a recipe of {expected}; both must be the same.", param="processes"
        )
    if size == 1:
        return Workers()
    rank = int(os.environ["RANK"])
    local = int(os.environ.get("LOCAL_RANK", rank))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    method = "env://" if "MASTER_ADDR" in os.environ else (folder / STORE).absolute().as_uri()
    torch.distributed.init_process_group(backend, method, world_size=size, rank=rank, timeout=_PATIENCE)
    return Workers(rank, size, local)
