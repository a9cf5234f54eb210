"""A stand-in for a server's files and fine-tuning jobs: it plays a script of events instead of training.

It stands for the routes of `serve/api/files` and `serve/api/tuning` as the `openai` client sees them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any

import httpx

from .conftest import refusal

ID = "ftjob-" + "0123456789abcdef12345678"
MODEL = "ft:tiny:support:01234567"
Event = dict[str, Any]


def message(text: str, level: str = "info") -> Event:
    return {"message": text, "level": level, "type": "message", "data": None}


def metrics(text: str, **data: Any) -> Event:
    return {"message": text, "level": "info", "type": "metrics", "data": data}


def step(number: int, loss: float) -> Event:
    figures = {"epoch": number / 4, "rate": 1e-4, "tokens": 100, "seconds": 0.5, "memory": 1 << 30}
    return metrics(f"Step {number}: training loss={loss:.4f}", step=number, train_loss=loss, **figures)


def a_training() -> list[Event]:
    """What a short training tells, from its making to its end."""
    return [
        message(f"Created fine-tuning job: {ID}"),
        message("Files validated, moving job to queued state"),
        message("Fine-tuning job started"),
        metrics("Training 8 rows in 4 steps", recipe={"epochs": 1}),
        metrics("It will take about 2 s and 1024 MiB", seconds=2.0, memory=1 << 30),
        step(1, 3.0),
        metrics("Step 1: answer to 'Who are you?'", step=1, prompt="Who are you?", answer="A \x1b[31mbot", model="x"),
        step(2, 2.0),
        metrics("Step 2: validation loss=2.5000", step=2, valid_loss=2.5),
        step(3, 1.5),
        step(4, 1.0),
        message(f"New fine-tuned model created: {MODEL}"),
        message("The job has successfully completed"),
    ]


@dataclass
class TuningServer:
    """Answers the routes. `status` is the job's when all events were told; a stream ends after each of `pieces`."""

    events: list[Event] = field(default_factory=a_training)
    status: str = "succeeded"
    model: str | None = MODEL
    base: str = "tiny"
    error: dict[str, Any] | None = None
    refuses: httpx.Response | None = None
    pieces: list[int] = field(default_factory=list)
    told: int = 0
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.requests.append(f"{request.method} {path}")
        if path in ("/livez", "/readyz"):
            return httpx.Response(200, json={"status": "ready"})
        if path == "/v1/models":
            return httpx.Response(200, json={"object": "list", "data": [{"id": "tiny"}]})
        if path == "/v1/files":
            return self._add(request)
        if path.startswith("/v1/files/"):
            del self.files[path.rpartition("/")[2]]
            return httpx.Response(200, json={"deleted": True})
        if path == "/v1/fine_tuning/jobs" and request.method == "POST":
            self.bodies.append(json.loads(request.content))
            return self.refuses or httpx.Response(200, json=self.job())
        if path == "/v1/fine_tuning/jobs":
            return self._page([self.job()] if self.bodies else [], request)
        found = re.fullmatch(rf"/v1/fine_tuning/jobs/{ID}(?:/(\w+))?", path)
        if found is None:
            return refusal(404, "not_found", "there is no such job")
        match found[1]:
            case None:
                return httpx.Response(200, json=self.job())
            case "checkpoints":
                return self._page([self.checkpoint()], request)
            case "events" if request.url.params.get("stream") == "true":
                return httpx.Response(200, stream=_Stream(self._stream(request.url.params.get("after"))))
            case "events":
                return self._page(self.records(self.told)[::-1], request)
        return self._act(found[1])

    def job(self) -> dict[str, Any]:
        status = self.status if self.told >= len(self.events) else "running"
        name = self.bodies[-1].get("suffix") if self.bodies else None
        return {
            "object": "fine_tuning.job",
            "id": ID,
            "status": status,
            "model": self.base,
            "created_at": 1_700_000_000,
            "finished_at": None,
            "fine_tuned_model": self.model if status == "succeeded" else None,
            "user_provided_suffix": name,
            "error": self.error if status == "failed" else None,
        }

    def checkpoint(self) -> dict[str, Any]:
        name = f"{MODEL}:ckpt-step-2"
        figures = {"train_loss": 2.0, "valid_loss": 2.5}
        return {"id": "ftckpt-1", "step_number": 2, "fine_tuned_model_checkpoint": name, "metrics": figures}

    def records(self, count: int) -> list[Event]:
        return [
            {
                "object": "fine_tuning.job.event",
                "id": f"ftevent-{number}",
                "created_at": 1_700_000_000 + number,
                **event,
            }
            for number, event in enumerate(self.events[:count], 1)
        ]

    def _stream(self, after: str | None) -> Iterator[bytes]:
        start = 0 if after is None else int(after.rpartition("-")[2])
        piece = self.pieces.pop(0) if self.pieces else None
        yield b": ping\n\n"
        for number, record in enumerate(self.records(len(self.events))[start:], start + 1):
            if piece is not None and number > start + piece:
                raise httpx.ReadError("the connection was reset")
            self.told = max(self.told, number)
            yield f"data: {json.dumps(record)}\n\n".encode()
        yield b"data: [DONE]\n\n"

    def _page(self, items: list[dict[str, Any]], request: httpx.Request) -> httpx.Response:
        params = request.url.params
        ids = [item["id"] for item in items]
        start = ids.index(params["after"]) + 1 if "after" in params else 0
        end = start + int(params["limit"])
        return httpx.Response(200, json={"object": "list", "data": items[start:end], "has_more": end < len(items)})

    def _act(self, action: str) -> httpx.Response:
        self.actions.append(action)
        ends = {"cancel": ("cancelled", "The job was cancelled"), "pause": ("paused", "The job was paused")}
        if action in ends:
            self.status, text = ends[action]
            self.events = [*self.events[: self.told], message(text)]
        return httpx.Response(200, json={**self.job(), "status": self.status if action in ends else "queued"})

    def _add(self, request: httpx.Request) -> httpx.Response:
        kind = f"content-type: {request.headers['content-type']}\r\n\r\n".encode()
        form = BytesParser(policy=HTTP).parsebytes(kind + request.read())
        parts = {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}
        assert parts["purpose"].get_content().strip() == "fine-tune"
        id_ = f"file-{len(self.files) + 1}"
        content = parts["file"].get_payload(decode=True)
        assert isinstance(content, bytes)
        self.files[id_] = (str(parts["file"].get_filename()), content)
        return httpx.Response(200, json={"id": id_, "object": "file"})


class _Stream(httpx.SyncByteStream):
    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces
