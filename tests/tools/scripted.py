"""A server that speaks OpenAI's chat API and answers from a script, over real HTTP on the loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Turn:
    """One answer: text, thinking before it, and calls as (name, arguments), of which `cut` leaves half of the last."""

    text: str = ""
    calls: tuple[tuple[str, dict[str, Any]], ...] = ()
    reasoning: str = ""
    cut: bool = False


Script = Callable[[dict[str, Any]], Turn]


@dataclass
class ScriptedModel:
    """`script` gives the turn for a request's body; `requests` keeps the bodies."""

    script: Script
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


def in_order(*turns: Turn) -> Script:
    """The turns one after the other, by how many answers the conversation holds already."""

    def script(body: dict[str, Any]) -> Turn:
        return turns[sum(message["role"] == "assistant" for message in body["messages"])]

    return script


def _written(turn: Turn, index: int) -> str:
    text = json.dumps(turn.calls[index][1])
    return text[: len(text) // 2] if turn.cut and index == len(turn.calls) - 1 else text


def _finish(turn: Turn) -> str:
    return "length" if turn.cut else "tool_calls" if turn.calls else "stop"


def chunks_of(turn: Turn, number: int, *, usage: bool) -> Iterator[dict[str, Any]]:
    """The chunks of a stream, in the safe order: role, text, calls, finish, usage."""
    common = {"id": f"chatcmpl-{number}", "object": "chat.completion.chunk", "created": 1, "model": "tiny@1"}
    common["system_fingerprint"] = "fp_1"

    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {**common, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    yield chunk({"role": "assistant", "content": ""})
    for word in turn.reasoning.split():
        yield chunk({"reasoning_content": word + " "})
    for word in turn.text.split(" ") if turn.text else ():
        yield chunk({"content": word + " "})
    for index, (name, _) in enumerate(turn.calls):
        call = {"index": index, "id": f"call_{number}_{index}", "type": "function"}
        yield chunk({"tool_calls": [{**call, "function": {"name": name, "arguments": ""}}]})
        text = _written(turn, index)
        for start in range(0, len(text), 5):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": text[start : start + 5]}}]})
    yield chunk({}, _finish(turn))
    if usage:
        yield {**common, "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}


def whole(turn: Turn, number: int) -> dict[str, Any]:
    calls = [
        {
            "id": f"call_{number}_{index}",
            "type": "function",
            "function": {"name": name, "arguments": _written(turn, index)},
        }
        for index, (name, _) in enumerate(turn.calls)
    ]
    message: dict[str, Any] = {"role": "assistant", "content": turn.text or None}
    if calls:
        message["tool_calls"] = calls
    if turn.reasoning:
        message["reasoning_content"] = turn.reasoning
    choice = {"index": 0, "message": message, "finish_reason": _finish(turn)}
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    head = {"id": f"chatcmpl-{number}", "object": "chat.completion", "created": 1, "model": "tiny@1"}
    return {**head, "system_fingerprint": "fp_1", "choices": [choice], "usage": usage}


@contextmanager
def scripted_model(script: Script) -> Iterator[ScriptedModel]:
    """The model while it listens; `url` is what clients take as the base, without `/v1`."""
    model = ScriptedModel(script)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            return

        def do_GET(self) -> None:
            self.answer(200, json.dumps({"object": "list", "data": [{"id": "tiny", "object": "model"}]}).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            model.requests.append(body)
            model.headers.append({name.lower(): value for name, value in self.headers.items()})
            number = len(model.requests)
            if body["model"] == "missing":
                error = {"message": "no such model", "type": "x", "param": "model", "code": "model_not_found"}
                self.answer(404, json.dumps({"error": error}).encode())
                return
            turn = model.script(body)
            if not body.get("stream"):
                self.answer(200, json.dumps(whole(turn, number)).encode())
                return
            asked = bool((body.get("stream_options") or {}).get("include_usage"))
            lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks_of(turn, number, usage=asked)]
            self.answer(200, ("".join(lines) + "data: [DONE]\n\n").encode(), "text/event-stream")

        def answer(self, status: int, data: bytes, kind: str = "application/json") -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    model.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield model
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
