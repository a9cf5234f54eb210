"""A served application whose jobs are run by an apprentice, and OpenAI's client of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from fastapi import FastAPI
from openai.types.fine_tuning import FineTuningJob

from tunechat.serve.api.app import create_app
from tunechat.serve.api.settings import ApiSettings
from tunechat.serve.api.tuning.answers import Answers, Told
from tunechat.serve.api.tuning.quiet import Pace
from tunechat.serve.text import ModelText
from tunechat.tests.serve.api.adapter_files import upload, write_adapter
from tunechat.tests.serve.api.conftest import Serve, Served
from tunechat.tests.serve.api.harness import MODEL, ScriptedEngine
from tunechat.tests.serve.api.tuning.lesson import PACE, ROOM, Wall

HERE = Path(__file__).parent
ALONE = (sys.executable, "-I", "-S")
LINES = b'{"messages": []}\n' * 3
ENDED = ("succeeded", "failed", "cancelled")


@dataclass
class Works:
    """A server with jobs. `place` is where the apprentice looks."""

    app: FastAPI
    engine: ScriptedEngine
    home: Path
    place: Path
    http: httpx2.AsyncClient

    def client(self, key: str = "any") -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(
            base_url="http://localhost:8000/v1", api_key=key, http_client=self.http, max_retries=0
        )

    def let_go(self) -> None:
        (self.place / "go").touch()

    async def upload(self, client: openai.AsyncOpenAI, content: bytes = LINES, name: str = "a.jsonl") -> str:
        return (await client.files.create(file=(name, content), purpose="fine-tune")).id

    async def submit(self, client: openai.AsyncOpenAI, **fields: Any) -> FineTuningJob:
        file = fields.pop("training_file", None) or await self.upload(client)
        extra = {key: fields.pop(key) for key in ("recipe",) if key in fields}
        return await client.fine_tuning.jobs.create(
            model=fields.pop("model", MODEL), training_file=file, extra_body=extra, **fields
        )

    async def until(
        self, client: openai.AsyncOpenAI, id_: str, is_so: Callable[[FineTuningJob], bool], within: float = 15.0
    ) -> FineTuningJob:
        end = time.monotonic() + within
        while not is_so(job := await client.fine_tuning.jobs.retrieve(id_)):
            assert time.monotonic() < end, f"still {job}"
            await asyncio.sleep(0.02)
        return job

    async def done(self, client: openai.AsyncOpenAI, id_: str) -> FineTuningJob:
        return await self.until(client, id_, lambda job: job.status in ENDED)

    async def at_step(self, client: openai.AsyncOpenAI, id_: str, step: int) -> FineTuningJob:
        return await self.until(client, id_, lambda job: job.progress["step"] >= step)  # type: ignore[attr-defined]

    async def checkpoints(self, client: openai.AsyncOpenAI, id_: str, count: int) -> list[Any]:
        """The checkpoints, as soon as the newest of `count` can be asked for."""
        end = time.monotonic() + 10
        while True:
            found = (await client.fine_tuning.jobs.checkpoints.list(id_)).data
            stored = [one for one in self.app.state.gateway.adapters.roster.all() if ".ckpt-" in one.ref.name]
            if len(found) >= count and len(stored) >= count:
                return found
            assert time.monotonic() < end, found
            await asyncio.sleep(0.02)


Open = Callable[..., Awaitable[Works]]


@pytest.fixture
def how(tmp_path: Path) -> Callable[..., None]:
    """`how(steps=3, hold=2)`: what the apprentice does."""

    def write(**fields: Any) -> None:
        (tmp_path / "place").mkdir(exist_ok=True)
        (tmp_path / "place" / "how.json").write_text(json.dumps({"steps": 3} | fields))

    write()
    return write


@pytest.fixture
async def opened(entry: Path, text: ModelText, tmp_path: Path, how: Callable[..., None]) -> AsyncIterator[Open]:
    """`await opened(**settings)`: a server, and the same home again when it is called again."""
    place, home = tmp_path / "place", tmp_path / "home"
    for step in (1, 2, 3):
        write_adapter(place / "adapters" / str(step), seed=step)
    async with contextlib.AsyncExitStack() as stack:

        async def make(engine: dict[str, Any] | None = None, **settings: Any) -> Works:
            scripted = ScriptedEngine(text=text, entry=entry, **(engine or {}))
            told = {"model": MODEL, "job_store": home / "jobs.db", "adapter_store": home / "adapters"} | settings
            app = create_app(
                scripted,
                ApiSettings(**told),
                trainer=(*ALONE, str(HERE / "apprentice.py"), str(place)),
                inquiry=(*ALONE, str(HERE / "clerk.py")),
            )
            await stack.enter_async_context(app.router.lifespan_context(app))
            await app.state.gateway.settled.wait()
            http = httpx2.AsyncClient(transport=httpx2.ASGITransport(app))
            await stack.enter_async_context(http)
            return Works(app, scripted, home, place, http)

        yield make


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
async def train(serve: Serve, wall: Wall, tmp_path: Path) -> Any:
    """`await train(engine={...}, told=None, pace=PACE)`: a server with learned@1 and learned@2, and its answers."""
    made: list[Answers] = []

    async def start(
        engine: dict[str, Any] | None = None, told: Told | None = None, pace: Pace = PACE
    ) -> tuple[Served, Answers]:
        served = await serve(ROOM | (engine or {}), adapter_store=tmp_path / "adapters")
        for seed in (1, 2):
            assert (await upload(served, "learned", seed)).is_success
        made.append(Answers(served.gateway, wall.note, told=told, pace=pace))
        return served, made[-1]

    yield start
    for answers in made:
        await answers.close()
