"""A served application in this process: `await serve(...)` gives its engine, its app and an HTTP client."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from tunechat.serve.api.app import create_app
from tunechat.serve.api.gateway import Gateway
from tunechat.serve.api.settings import ApiSettings
from tunechat.serve.text import ModelText
from tunechat.tests.serve.api.harness import LEAKS, MODEL, ScriptedEngine, write_entry
from tunechat.tests.serve.api.server_process import Process, Start, begin
from tunechat.tests.serve.api.tool_bench import Make, bench_maker


@dataclass(frozen=True)
class Served:
    engine: ScriptedEngine
    app: FastAPI
    client: httpx.AsyncClient

    @property
    def gateway(self) -> Gateway:
        gateway: Gateway = self.app.state.gateway
        return gateway


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture(scope="session")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_entry(tmp_path_factory.mktemp("entry"))


@pytest.fixture(scope="session")
def text(entry: Path) -> ModelText:
    return ModelText.load(entry)


async def _no_leak(response: httpx.Response) -> None:
    await response.aread()
    if "openapi" not in str(response.url) and response.status_code >= 400:
        assert not LEAKS.search(response.content), response.text
        assert response.headers["x-request-id"].startswith("req_")


@pytest.fixture
async def serve(entry: Path, text: ModelText) -> AsyncIterator[Serve]:
    """`serve(engine={...}, **settings)`. Every error that any test gets is searched for leaks."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(
            engine: dict[str, Any] | None = None, headers: Any = None, open_tools: Any = None, **settings: Any
        ) -> Served:
            scripted = ScriptedEngine(text=text, entry=entry, **(engine or {}))
            app = create_app(scripted, ApiSettings(**({"model": MODEL} | settings)), open_tools=open_tools)
            await stack.enter_async_context(app.router.lifespan_context(app))
            if scripted.load is None:
                await app.state.gateway.settled.wait()
            client = await stack.enter_async_context(
                httpx.AsyncClient(
                    transport=httpx.ASGITransport(app),
                    base_url="http://localhost:8000",
                    headers=headers,
                    event_hooks={"response": [_no_leak]},
                )
            )
            return Served(scripted, app, client)

        yield make


@pytest.fixture
def bench(serve: Serve, tmp_path: Path) -> Make:
    """Makes served applications whose server runs tools."""
    return bench_maker(serve, tmp_path)


@pytest.fixture
def start(entry: Path) -> Iterator[Start]:
    """`start(wait=True, settings={...}, engine={...})`: a server process, ready unless `wait` is off."""
    running: list[Process] = []

    def started(*, wait: bool = True, **options: Any) -> Process:
        process = begin(entry, options)
        running.append(process)
        if wait:
            process.wait_ready()
        return process

    yield started
    for process in running:
        process.kill()
