"""Fine-tuning jobs of a running server: what the commands ask of OpenAI's routes for them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..contract.errors import InvalidRequest, TunechatError, Unavailable
from .server import DONE, Server, chunk_of

JsonObject = dict[str, Any]
ENDED = frozenset({"succeeded", "failed", "cancelled"})

_ROOT = "/v1/fine_tuning/jobs"
_PAGE = 100
_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")


class ServerJobs:
    """The jobs of `server`. Every method raises the error that the server answers with."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def add_file(self, file: Path, name: str) -> str:
        """Sends a file to learn from; gives its id."""
        return str(_object(self._server.send_file("/v1/files", file, name, {"purpose": "fine-tune"})).get("id"))

    def drop_file(self, id_: str) -> None:
        """Deletes a file if that can be done: it is in nobody's way."""
        with suppress(TunechatError):
            self._server.ask("DELETE", f"/v1/files/{_checked(id_)}")

    def create(self, body: JsonObject) -> JsonObject:
        return _object(self._server.ask("POST", _ROOT, body))

    def show(self, id_: str) -> JsonObject:
        return _object(self._server.get(_path(id_)))

    def act(self, id_: str, action: str) -> JsonObject:
        """The job after `action`: cancel, pause or resume."""
        return _object(self._server.ask("POST", f"{_path(id_)}/{action}"))

    def listing(self, most: int) -> list[JsonObject]:
        """The latest jobs, the newest first."""
        return list(self._pages(_ROOT, most))

    def checkpoints(self, id_: str) -> list[JsonObject]:
        """The job's checkpoints, the newest first."""
        return list(self._pages(f"{_path(id_)}/checkpoints", _PAGE))

    def events(self, id_: str, most: int, *, until: str | None = None) -> list[JsonObject]:
        """The latest events of a job, the oldest of them first: at most so many, and none up to the event `until`."""
        found: list[JsonObject] = []
        for event in self._pages(f"{_path(id_)}/events", most):
            if until is not None and event.get("id") == until:
                break
            found.append(event)
        return found[::-1]

    def stream(self, id_: str, after: str | None = None) -> Iterator[JsonObject]:
        """The events behind `after`, or all, as they happen, until the job has ended."""
        query = "?stream=true" + ("" if after is None else f"&after={_checked(after)}")
        for data in self._server.stream(f"{_path(id_)}/events{query}"):
            if data == DONE:
                return
            yield chunk_of(data)

    def _pages(self, path: str, most: int) -> Iterator[JsonObject]:
        after = ""
        while most > 0:
            page = _object(self._server.get(f"{path}?limit={min(most, _PAGE)}{after}"))
            items = [item for item in page.get("data", ()) if isinstance(item, dict)]
            yield from items[:most]
            most -= len(items)
            if not items or not page.get("has_more"):
                return
            after = f"&after={_checked(str(items[-1].get('id')))}"


def _path(id_: str) -> str:
    return f"{_ROOT}/{_checked(id_)}"


def _checked(id_: str) -> str:
    """An id as it is part of a route. Raises InvalidRequest for what is none, so that no other route is asked."""
    if not _ID.fullmatch(id_):
        raise InvalidRequest(f"{id_[:80]!r} is no id of a job; `tunechat jobs list` lists them")
    return id_


def _object(answer: Any) -> JsonObject:
    if not isinstance(answer, dict):
        raise Unavailable("the server's answer is no JSON object; is it a tunechat server?")
    return answer
