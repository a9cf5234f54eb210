"""What whoever needs the engine is told when it is not there."""

from __future__ import annotations

from typing import Literal

from ..contract.errors import EngineFailed, Unavailable

State = Literal["new", "starting", "ready", "restarting", "failed", "closed"]


def unavailable(state: State) -> Unavailable:
    """Why nothing can be asked of an engine in this state, and when to come back."""
    match state:
        case "failed":
            return Unavailable("the engine could not be started; the server's log says why", retry_after=60)
        case "restarting":
            return Unavailable("the engine failed and is being restarted", retry_after=5)
        case "closed":
            return shutting_down()
        case _:
            return Unavailable("the model is still loading", retry_after=5)


def engine_died() -> EngineFailed:
    return EngineFailed("the engine died while it worked on this request; please send it again")


def shutting_down() -> Unavailable:
    return Unavailable("the server is shutting down", code="shutting_down")


def obituary(status: int) -> str:
    """How a process with this exit status ended."""
    how = f"by signal {-status}" if status < 0 else f"with status {status}"
    return f"the engine's process ended {how}"
