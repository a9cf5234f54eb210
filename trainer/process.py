"""The trainer's process: reads its order, trains, says how it goes, and ends with the exit code of the protocol."""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import msgspec

from ..serve.adapters.durable import locked_if_free
from ..serve.contract.errors import ConfigError, Conflict, TunechatError
from ..serve.contract.jobs import DONE, FAILED, ORDER, PAUSED, TrainingFailed, TrainingOrder
from .events import Events, silent_events, take_stdout
from .launch import end_with_parent, launch
from .yielding import NICENESS, Yielding, threads_for

_LOCK = "trainer.lock"


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
    """Trains what the order in `folder` says. Gives the exit code; why it failed is an event.

    Where the order asks for several processes this one starts them, and waits.
    """
    events = take_stdout()
    if os.environ.get("RANK", "0") != "0":
        events = silent_events()
    stop = Stop(events)
    try:
        # Whoever started this one of several holds the lock.
        if "RANK" in os.environ:
            end_with_parent()
            return DONE if train(folder, events, stop) else PAUSED
        with locked_if_free(folder / _LOCK) as is_free:
            if not is_free:
                raise Conflict(f"Another process is training in {folder}.")
            count = _processes(folder)
            if count > 1:
                return launch(folder, count, events.descriptor, stop)
            return DONE if train(folder, events, stop) else PAUSED
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        events.send(_failure(error))
        return FAILED


def _processes(folder: Path) -> int:
    from .recipe_file import make_recipe

    return make_recipe(_order(folder).recipe).processes


def train(folder: Path, events: Events, stop: Callable[[], bool]) -> bool:
    """Trains in this process; whether it is done. If not, it was asked to stop."""
    order = _order(folder)
    from .recipe_file import make_recipe

    recipe = make_recipe(order.recipe)
    os.nice(NICENESS[recipe.priority])
    # Read when torch is loaded. Threads that spin while they wait take the cores from the server, and from each other:
    # beside other work a step took ten times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from ..serve.base.entry import BaseEntry
    from .base import base_of
    from .lessons import read_lessons
    from .lora import plan_of, targets_of
    from .supported import check_supported

    served = BaseEntry.open(Path(order.entry))
    check_supported(recipe, served.manifest)
    # The one moment at which a model may be fetched.
    entry = base_of(recipe, served)
    _go_offline()
    lessons = read_lessons(recipe, entry.folder, entry.manifest)
    recipe = lessons.recipe
    if recipe.method != "full":
        targets_of(plan_of(recipe), entry.manifest)
    if stop():
        return False
    import torch

    from .computing import computing_of
    from .loop import Training
    from .methods import make_model
    from .workers import join_workers

    _use_threads(order.threads, recipe.priority)
    workers = join_workers(folder, recipe.processes)
    torch.manual_seed(recipe.seed)
    model = make_model(recipe, entry, computing_of(recipe, workers.local))
    if not workers.is_first:
        # The first weights are the same; what is left out at random is not.
        torch.manual_seed(recipe.seed + workers.rank)
    yielding = Yielding(Path(order.busy) if order.busy else None, recipe.priority, stop)
    return Training(model, lessons, entry.manifest, folder, events, yielding, order.job, workers=workers).run()


def _order(folder: Path) -> TrainingOrder:
    try:
        return msgspec.json.decode((folder / ORDER).read_bytes(), type=TrainingOrder)
    except (OSError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{folder / ORDER} cannot be read: {error}") from error


def _go_offline() -> None:
    """From now on nobody asks a hub for anything, whether its library was loaded before or will be."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    if constants := sys.modules.get("huggingface_hub.constants"):
        constants.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]


def _use_threads(count: int, priority: str) -> None:
    import torch

    from ..serve.kernels import available_cores, set_threads

    # Those of one machine share its cores.
    share = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    threads = max(1, threads_for(priority, count, available_cores()) // share)
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
            code="insufficient_storage",
            message="The disk is full. Checkpoints that were written before are whole; make room and resume.",
        )
    said = " ".join(str(error).split())[:500]
    return TrainingFailed(code="internal_error", message=f"{type(error).__name__}: {said}")
