"""The command line as a function, and a server that answers as OpenAI's does."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tunechat.serve.cli import main
from tunechat.serve.commands.server import Server

from .adapter_home import Workshop


@dataclass(frozen=True, slots=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty TUNECHAT_HOME, and no other setting in the environment."""
    import os

    for name in [name for name in os.environ if name.startswith("TUNECHAT_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    monkeypatch.setenv("TUNECHAT_HOME", str(home))
    return home


@pytest.fixture
def tunechat(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs `tunechat ARGUMENTS` in this process."""

    def call(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["tunechat", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exited:
            main()
        captured = capsys.readouterr()
        code = exited.value.code
        return Done(code if isinstance(code, int) else int(code is not None), captured.out, captured.err)

    return call


Stream = list[dict[str, Any]]


def good_stream(body: dict[str, Any]) -> Stream:
    """Chunks in the safe order: role, text, finish, usage when it was asked for."""

    def chunk(choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "tiny",
            "system_fingerprint": "fp_1",
            "choices": choices,
        }

    def choice(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}

    chunks = [
        chunk([choice({"role": "assistant", "content": ""})]),
        chunk([choice({"content": "Hello"})]),
        chunk([choice({"content": " there"})]),
        chunk([choice({}, "stop")]),
    ]
    if (body.get("stream_options") or {}).get("include_usage"):
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        chunks.append({**chunk([]), "usage": usage})
    return chunks


@dataclass
class FakeServer:
    """Answers requests; `stream` and `answers` may be changed to make it a bad one."""

    stream: Callable[[dict[str, Any]], Stream] = good_stream
    answers: dict[str, httpx.Response | Iterator[httpx.Response]] = field(default_factory=dict)
    ending: str = "data: [DONE]\n\n"
    context: int = 64
    ignores_tools: bool = False
    requests: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        path = request.url.path
        if path in self.answers:
            answer = self.answers[path]
            return answer if isinstance(answer, httpx.Response) else next(answer)
        body = json.loads(request.content) if request.content else {}
        match path:
            case "/livez":
                return httpx.Response(200, json={"status": "ok"})
            case "/readyz":
                return httpx.Response(200, json={"status": "ready"})
            case "/version":
                return httpx.Response(200, json={"version": "1.2.3"})
            case "/v1/models":
                model = {"id": "tiny", "object": "model", "created": 1, "owned_by": "x", "max_model_len": self.context}
                model["tool_dialect"] = "hermes"
                return httpx.Response(200, json={"object": "list", "data": [model]})
            case "/v1/chat/completions":
                return self.chat(body)
            case "/v1/completions":
                choice = {"index": 0, "text": " upon", "finish_reason": "length"}
                return httpx.Response(200, json={"object": "text_completion", "choices": [choice]})
        return refusal(404, "not_found", "no such route")

    def chat(self, body: dict[str, Any]) -> httpx.Response:
        words = len(body["messages"][-1]["content"].split())
        if body["model"] != "tiny":
            return refusal(404, "model_not_found", "no such model")
        if words > self.context:
            return refusal(400, "context_length_exceeded", f"{words} tokens, context {self.context}")
        if "tools" in body and not self.ignores_tools:
            return refusal(400, "unsupported", "tools are not supported", "tools")
        if body.get("stream"):
            text = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in self.stream(body))
            return httpx.Response(200, text=": ping\n\n" + text + self.ending)
        count = min(2, body.get("max_tokens") or 2, body.get("max_completion_tokens") or 2)
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello there"},
            "finish_reason": "stop" if count == 2 else "length",
        }
        usage = {"prompt_tokens": 3, "completion_tokens": count, "total_tokens": 3 + count}
        answer = {"id": "chatcmpl-1", "object": "chat.completion", "model": "tiny", "choices": [choice], "usage": usage}
        return httpx.Response(200, json=answer)


def refusal(status: int, code: str, message: str, param: str | None = None) -> httpx.Response:
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return httpx.Response(status, json={"error": error})


@pytest.fixture
def fake() -> FakeServer:
    return FakeServer()


@pytest.fixture
def server(fake: FakeServer) -> Iterator[Server]:
    """A client of `fake`."""
    with Server("http://127.0.0.1:1", "secret-key", transport=httpx.MockTransport(fake)) as server:
        yield server


@pytest.fixture
def served(fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    """`fake`, reached by every command that asks a server."""
    transport = httpx.MockTransport(fake)

    def of(settings: Any) -> Server:
        keys = settings.plain_api_keys
        return Server(settings.server_url, keys[0] if keys else None, transport=transport)

    def admin_of(settings: Any) -> Server:
        keys = settings.plain_admin_keys or settings.plain_api_keys
        return Server(settings.server_url, keys[0] if keys else None, transport=transport)

    monkeypatch.setattr(Server, "of", of)
    monkeypatch.setattr(Server, "admin_of", admin_of)
    return fake


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Tiny models and adapters, shared by all tests: nobody may change them."""
    return Workshop(tmp_path_factory.mktemp("workshop"))
