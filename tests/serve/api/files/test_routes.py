"""Files through OpenAI's own client, and through clients that do what it never would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx2
import openai
import pytest

from tunechat.serve.jobs.database import Database
from tunechat.serve.jobs.job import NewJob
from tunechat.serve.jobs.store import JobStore
from tunechat.tests.serve.api.conftest import Serve, Served

LINES = b'{"messages": []}\r\n' * 3
Connect = Callable[..., openai.AsyncOpenAI]
Open = Callable[..., Awaitable[Served]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def opened(serve: Serve, home: Path) -> Open:
    """`await opened(**settings)`: a served application that takes files."""

    async def make(**settings: object) -> Served:
        return await serve(**{"job_store": home / "jobs.db"} | settings)

    return make


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """`connect(served, key)`: OpenAI's client."""
    clients: list[httpx2.AsyncClient] = []

    def make(served: Served, key: str = "any") -> openai.AsyncOpenAI:
        clients.append(httpx2.AsyncClient(transport=httpx2.ASGITransport(served.app)))
        return openai.AsyncOpenAI(
            base_url="http://localhost:8000/v1", api_key=key, http_client=clients[-1], max_retries=0
        )

    yield make
    for client in clients:
        await client.aclose()


def on_disk(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "files").glob("*"))


def damaged(home: Path) -> Path:
    home.mkdir()
    path = home / "jobs.db"
    path.write_bytes(b"no database" * 1000)
    return path


async def test_a_file_comes_back_as_it_was_sent(opened: Open, connect: Connect, home: Path) -> None:
    client = connect(await opened())
    made = await client.files.create(file=("mine ü.jsonl", LINES), purpose="fine-tune")
    assert (made.object, made.bytes, made.filename, made.purpose) == ("file", len(LINES), "mine ü.jsonl", "fine-tune")
    assert made.status == "processed"
    assert await client.files.retrieve(made.id) == made
    assert (await client.files.content(made.id)).content == LINES
    assert (await client.files.wait_for_processing(made.id)).id == made.id
    assert on_disk(home) == [f"{made.id}.jsonl"]
    gone = await client.files.delete(made.id)
    assert (gone.id, gone.object, gone.deleted) == (made.id, "file", True)
    assert on_disk(home) == []
    with pytest.raises(openai.NotFoundError) as caught:
        await client.files.retrieve(made.id)
    assert caught.value.param == "file_id"


async def test_a_large_file_passes_the_bound_of_other_bodies(opened: Open, connect: Connect) -> None:
    client = connect(await opened(max_body_bytes=1024))
    whole = bytes(range(256)) * 12_000
    made = await client.files.create(file=("a.parquet", whole), purpose="fine-tune")
    assert (await client.files.content(made.id)).content == whole


async def test_files_are_listed_in_pages(opened: Open, connect: Connect) -> None:
    client = connect(await opened())
    ids = [(await client.files.create(file=(f"{i}", b"x"), purpose="fine-tune")).id for i in range(5)]
    assert [file.id async for file in client.files.list(limit=2)] == ids[::-1]
    assert [file.id async for file in client.files.list(order="asc", after=ids[1])] == ids[2:]
    assert [file.id async for file in client.files.list(purpose="batch")] == []
    page = await client.files.list(limit=2)
    assert page.has_more
    for wrong in ({"limit": 0}, {"order": "up"}):
        with pytest.raises(openai.BadRequestError) as caught:
            await client.files.list(**wrong)  # type: ignore[arg-type]
        assert caught.value.param == next(iter(wrong))


async def test_files_stay_when_the_server_is_started_again(serve: Serve, connect: Connect, home: Path) -> None:
    settings = {"job_store": home / "jobs.db"}
    made = await connect(await serve(**settings)).files.create(file=("a", LINES), purpose="fine-tune")
    assert (await connect(await serve(**settings)).files.content(made.id)).content == LINES


async def test_each_key_has_its_own(opened: Open, connect: Connect) -> None:
    served = await opened(api_keys=("one", "two"))
    mine, theirs = connect(served, "one"), connect(served, "two")
    made = await mine.files.create(file=("a", b"x"), purpose="fine-tune")
    for ask in (theirs.files.retrieve, theirs.files.content, theirs.files.delete):
        with pytest.raises(openai.NotFoundError):
            await ask(made.id)
    assert (await theirs.files.list()).data == []
    assert (await mine.files.retrieve(made.id)).id == made.id


async def test_a_file_that_a_job_needs_is_not_deleted(opened: Open, connect: Connect, home: Path) -> None:
    client = connect(await opened())
    made = await client.files.create(file=("a", b"x"), purpose="fine-tune")
    base = Database(home / "jobs.db")
    job = JobStore(base).create(NewJob(tenant="", model="m", recipe={}, training_file=made.id))
    base.close()
    with pytest.raises(openai.ConflictError, match=job.id):
        await client.files.delete(made.id)
    assert (await client.files.content(made.id)).content == b"x"


async def test_too_large_a_file_is_refused_and_leaves_nothing(opened: Open, connect: Connect, home: Path) -> None:
    client = connect(await opened(max_file_bytes=100_000))
    for size in (100_001, 1_000_000):
        with pytest.raises(openai.APIStatusError) as caught:
            await client.files.create(file=("a", b"x" * size), purpose="fine-tune")
        assert caught.value.status_code == 413
    assert on_disk(home) == []
    await client.files.create(file=("a", b"x" * 100_000), purpose="fine-tune")


@pytest.mark.parametrize("purpose", ["vision", "fine-tune-results"])
async def test_other_purposes_are_refused(opened: Open, connect: Connect, home: Path, purpose: str) -> None:
    client = connect(await opened())
    with pytest.raises(openai.BadRequestError) as caught:
        await client.files.create(file=("a", b"x"), purpose=purpose)  # type: ignore[arg-type]
    assert caught.value.param == "purpose"
    assert on_disk(home) == []


async def test_a_client_that_leaves_in_the_middle_leaves_nothing(opened: Open, home: Path) -> None:
    served = await opened()
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"x" * (2 << 20)
    sent = asyncio.Event()

    async def receive() -> dict[str, object]:
        if not sent.is_set():
            sent.set()
            return {"type": "http.request", "body": head, "more_body": True}
        assert on_disk(home), "it is written as it arrives"
        return {"type": "http.disconnect"}

    async def send(message: object) -> None:
        """Nobody is there to read it."""

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/files",
        "raw_path": b"/v1/files",
        "query_string": b"",
        "headers": [(b"host", b"localhost:8000"), (b"content-type", b"multipart/form-data; boundary=b")],
        "client": ("127.0.0.1", 1),
        "server": ("localhost", 8000),
        "scheme": "http",
        "http_version": "1.1",
        "asgi": {"version": "3.0"},
        "root_path": "",
    }
    await served.app(scope, receive, send)
    assert on_disk(home) == []


async def test_a_server_without_a_store_says_so(serve: Serve, connect: Connect) -> None:
    client = connect(await serve())
    with pytest.raises(openai.BadRequestError) as caught:
        await client.files.list()
    assert caught.value.code == "unsupported"


async def test_a_store_that_cannot_be_opened_stops_nothing_else(serve: Serve, connect: Connect, home: Path) -> None:
    served = await serve(job_store=damaged(home))
    with pytest.raises(openai.InternalServerError) as caught:
        await connect(served).files.list()
    assert (caught.value.status_code, caught.value.code) == (503, "store_failed")
    assert (await served.client.get("/v1/models")).status_code == 200
