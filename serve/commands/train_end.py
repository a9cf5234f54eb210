"""What is said when a training has ended, is paused or is left alone: what came of it, and what can be done now."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator

import typer

from ..contract.errors import TunechatError
from .jobs_course import Course
from .jobs_server import JsonObject
from .jobs_view import curve_lines, name_of, printable

INTERRUPTED = 130
_GREETING = "Hello!"


def success_lines(job: JsonObject, course: Course, *, url: str, is_private: bool, prompt: str | None) -> Iterator[str]:
    """The learning curve, the model's names, and the command to chat with it; `url` is "" for the usual server."""
    yield from curve_lines(course)
    model = job.get("fine_tuned_model")
    if not isinstance(model, str):
        yield f"{job.get('id')} has succeeded"
        return
    name = name_of(job) or model
    yield f"{printable(name)} is ready" + (f" ({printable(model)})" if name != model else "")
    if is_private:
        yield "serve it:       tunechat serve"
    where = f" --url {shlex.quote(url)}" if url else ""
    question = shlex.quote(printable(prompt or _GREETING))
    yield f"chat with it:   tunechat run --model {shlex.quote(name)}{where} {question}"


def failure(job: JsonObject, told: Callable[[str], str]) -> TunechatError:
    """Why the job failed, with the user's own lines of data."""
    error = job.get("error")
    message = error.get("message") if isinstance(error, dict) else None
    return TunechatError(f"{job.get('id')} failed: {told(str(message or 'the server does not say why'))}")


def rest_line(job: JsonObject, *, is_private: bool) -> str:
    """What has become of a job that has neither succeeded nor failed."""
    id_, status = job.get("id"), str(job.get("status"))
    if status == "cancelled":
        return f"{id_} is cancelled"
    if is_private:
        state = "paused" if status == "paused" else "not done"
        return f"{id_} is {state}; `tunechat train --resume {id_}` goes on with it"
    if status == "paused":
        return f"{id_} is paused; `tunechat jobs resume {id_}` lets it go on"
    return f"{id_} is {status}; `tunechat jobs logs -f {id_}` follows it"


def leave(interrupted: bool) -> typer.Exit:
    """The end of a command whose training has not succeeded."""
    return typer.Exit(INTERRUPTED if interrupted else 1)
