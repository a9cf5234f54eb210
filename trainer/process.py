"""The trainer's process: reads its order, trains, says how it goes, and ends with the exit code of the protocol."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType

import msgspec

from ..serve.adapters.durable import locked_if_free
from ..serve.contract.errors import ConfigError, Conflict, TunechatError
from ..serve.contract.jobs import DONE, FAILED, ORDER, PAUSED, TrainingFailed, TrainingOrder
from .events import Events, take_stdout

_LOCK = "trainer.lock"
_NICENESS = {"background": 19, "balanced": 10, "training": 0}


class Stop:
    """Whether this process was asked to stop: by SIGTERM, or because nobody reads its events."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._asked = False
        signal.signal(signal.SIGTERM, self._ask)

    def __call__(self) -> bool:
        return self._asked or self._events.is_cut_off

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True


def main(folder: Path) -> int:
    """Trains what the order in `folder` says. Gives the exit code; why it failed is an event."""
    events = take_stdout()
    stop = Stop(events)
    try:
        with locked_if_free(folder / _LOCK) as is_free:
            if not is_free:
                raise Conflict(f"Another process is training in {folder}.")
            return DONE if _train(folder, events, stop) else PAUSED
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        events.send(_failure(error))
        return FAILED


def _train(folder: Path, events: Events, stop: Stop) -> bool:
    """Whether it is done; if not, it was asked to stop."""
    order = _order(folder)
    from .recipe_file import make_recipe

    recipe = make_recipe(order.recipe)
    os.nice(_NICENESS[recipe.priority])
    os.environ["HF_HUB_OFFLINE"] = "1"
    # Read when torch is loaded. Threads that spin while they wait take the cores from the server, and from each other:
    # beside other work a step took ten times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from ..serve.base.entry import BaseEntry
    from .lessons import read_lessons
    from .lora import plan_of, targets_of
    from .supported import check_supported

    entry = BaseEntry.open(Path(order.entry))
    check_supported(recipe, entry.manifest)
    lessons = read_lessons(recipe, entry.folder, entry.manifest)
    recipe = lessons.recipe
    plan = plan_of(recipe)
    targets_of(plan, entry.manifest)
    if stop():
        return False
    import torch

    from .loop import Training
    from .model import TrainedModel

    _use_threads(order.threads)
    torch.manual_seed(recipe.seed)
    device = torch.device(_device(recipe.device))
    model = TrainedModel(entry, plan, device, checkpointing=recipe.gradient_checkpointing)
    return Training(model, lessons, entry.manifest, folder, events, stop).run()


def _order(folder: Path) -> TrainingOrder:
    try:
        return msgspec.json.decode((folder / ORDER).read_bytes(), type=TrainingOrder)
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{folder / ORDER} cannot be read: {error}") from error


def _device(wanted: str) -> str:
    import torch

    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: there is no usable GPU; take device=cpu or leave it out.", param="device")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def _use_threads(count: int) -> None:
    import torch

    from ..serve.kernels import available_cores, set_threads

    threads = min(count, available_cores()) if count else available_cores()
    set_threads(threads)
    torch.set_num_threads(threads)


def _failure(error: Exception) -> TrainingFailed:
    from .memory import is_out_of_memory

    if isinstance(error, TunechatError):
        return TrainingFailed(code=error.code, message=error.message, param=error.param)
    if is_out_of_memory(error):
        return TrainingFailed(
            code="out_of_memory",
            message="There was not enough memory. Take a smaller batch_tokens or max_length, or keep "
            "gradient_checkpointing on.",
            param="batch_tokens",
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TrainingFailed(
            code="disk_full",
            message="The disk is full. Checkpoints that were written before are whole; make room and resume.",
        )
    said = " ".join(str(error).split())[:500]
    return TrainingFailed(code="internal_error", message=f"{type(error).__name__}: {said}")
