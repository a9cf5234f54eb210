"""Data checked and shown, and recipes listed, by an application with the real child."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tunechat.serve.jobs.inquiry import Inquiries
from tunechat.tests.serve.api.conftest import Serve, Served

GOOD = json.dumps({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}) + "\n"
Open = Callable[..., Awaitable[Served]]


@pytest.fixture
def opened(serve: Serve, tmp_path: Path) -> Open:
    """`await opened(**settings)`: a served application that takes files."""

    async def make(**settings: object) -> Served:
        return await serve(**{"job_store": tmp_path / "home" / "jobs.db"} | settings)

    return make


async def upload(client: httpx.AsyncClient, text: str, name: str = "my data.jsonl", key: str = "any") -> str:
    reply = await client.post(
        "/v1/files",
        files={"file": (name, text.encode())},
        data={"purpose": "fine-tune"},
        headers={"authorization": f"Bearer {key}"},
    )
    assert reply.status_code == 200, reply.text
    id_: str = reply.json()["id"]
    return id_


def error_of(reply: httpx.Response, status: int = 400) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    error: dict[str, Any] = reply.json()["error"]
    return error


async def test_a_file_is_checked_by_its_own_name(opened: Open) -> None:
    client = (await opened()).client
    file, held = await upload(client, GOOD + "no\n"), await upload(client, GOOD, "held.jsonl")
    reply = await client.post("/v1/data/check", json={"file": file, "validation_file": held, "max_length": 8})
    assert reply.status_code == 200, reply.text
    found = reply.json()
    assert (found["object"], found["ok"], found["samples"], found["learned_tokens"]) == ("data.check", False, 1, 3)
    assert found["by_kind"] == {"json": 1, "overlap": 1, "too_long": 2}
    assert {problem["file"] for problem in found["problems"]} == {"my data.jsonl", "held.jsonl"}
    assert str(Path.home()) not in reply.text and "/files/" not in reply.text


async def test_a_text_is_shown_as_it_is_learned(opened: Open) -> None:
    client = (await opened()).client
    reply = await client.post("/v1/data/preview", json={"text": GOOD * 3, "limit": 2, "skip": 1, "max_length": 8})
    found = reply.json()
    assert (found["object"], found["format"], found["more"]) == ("data.preview", "openai", False)
    assert [sample["line"] for sample in found["samples"]] == [2, 3]
    row = found["samples"][0]["rows"][0]
    assert [(piece["text"], piece["trained"]) for piece in row["pieces"]][-1] == ("ho<|im_end|>", True)
    assert (row["trained_tokens"], row["fits"], row["cut"]) == (3, False, False)


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "file", "either"),
        ({"text": "x", "file": "file-1"}, "file", "either"),
        ({"file": "file-1", "filename": "x"}, "filename", "own"),
        ({"text": "x", "formt": "alpaca"}, "formt", "Unknown"),
        ({"text": "x", "limit": 101}, "limit", "100"),
        ({"text": "x", "limit": 1, "max_length": 7}, "max_length", "8"),
        ({"text": 3}, "text", "string"),
    ],
)
async def test_bodies_that_are_wrong_name_the_field(opened: Open, body: Any, param: str, words: str) -> None:
    served = await opened()
    error = error_of(await served.client.post("/v1/data/preview", json=body))
    assert error["param"] == param and words in error["message"]


async def test_what_the_child_refuses_names_the_field(opened: Open) -> None:
    client = (await opened()).client
    asks = [
        ({"text": "x", "format": "alpacca"}, "format", "alpaca"),
        ({"text": "x", "filename": "a.exe"}, "filename", "must end in"),
        ({"text": '{"what": 1}'}, None, "text.jsonl: the format is not known"),
    ]
    replies = await asyncio.gather(*(client.post("/v1/data/preview", json=body) for body, _, _ in asks))
    for reply, (_, param, words) in zip(replies, asks, strict=True):
        error = error_of(reply)
        assert error["param"] == param and words in error["message"]


async def test_files_of_others_are_not_there(opened: Open) -> None:
    client = (await opened(api_keys=("one", "two"))).client
    file = await upload(client, GOOD, key="one")
    for path, body in (
        ("/v1/data/check", {"file": file}),
        ("/v1/data/check", {"text": GOOD, "validation_file": file}),
        ("/v1/data/preview", {"file": "file-none"}),
    ):
        reply = await client.post(path, json=body, headers={"authorization": "Bearer two"})
        assert error_of(reply, 404)["param"] == ("validation_file" if "text" in body else "file")
    assert (await client.post("/v1/data/check", json={"text": GOOD})).status_code == 401


async def test_a_server_without_files_looks_at_texts(serve: Serve) -> None:
    client = (await serve()).client
    assert error_of(await client.post("/v1/data/check", json={"file": "file-1"}))["code"] == "unsupported"
    assert (await client.post("/v1/data/check", json={"text": GOOD})).json()["ok"]


async def test_a_model_that_loads_is_waited_for(serve: Serve) -> None:
    served = await serve(engine={"load": asyncio.Event(), "state": "new"})
    served.engine.state = "new"
    assert error_of(await served.client.post("/v1/data/check", json={"text": GOOD}), 503)["code"] == "model_loading"


async def test_recipes_are_asked_for_once(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    ask = Inquiries.ask

    async def counting(self: Inquiries, question: Any, *rest: Any, **options: Any) -> Any:
        asked.append(question)
        return await ask(self, question, *rest, **options)

    monkeypatch.setattr(Inquiries, "ask", counting)
    client = (await opened()).client
    listed, shown = await asyncio.gather(client.get("/v1/recipes"), client.get("/v1/recipes/small-gpu"))
    assert len(asked) == 1
    found = listed.json()
    assert found["object"] == "list" and "tools" in {recipe["id"] for recipe in found["data"]}
    assert {"key", "values", "default", "meaning"} == found["keys"][0].keys()
    recipe = shown.json()
    assert recipe in found["data"] and recipe["object"] == "recipe"
    assert recipe["recipe"]["codec"] == "nf4" and recipe["text"].startswith("#")
    assert "epochs" in recipe["chosen_by_the_data"] or recipe["recipe"]["epochs"] != "auto"
    error = error_of(await client.get("/v1/recipes/smal-gpu"), 404)
    assert error["param"] == "name" and "small-gpu" in error["message"]
    await client.get("/v1/recipes/" + "x" * 2000)
    assert len(asked) == 1


async def test_a_client_that_leaves_ends_its_question(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = asyncio.Event()
    begun = asyncio.Event()

    async def endless(self: Inquiries, *_: Any, **__: Any) -> Any:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    monkeypatch.setattr(Inquiries, "ask", endless)
    served = await opened()
    body = json.dumps({"text": GOOD}).encode()
    sent = False

    async def receive() -> dict[str, object]:
        nonlocal sent
        if not sent:
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}
        await begun.wait()
        return {"type": "http.disconnect"}

    async def send(message: object) -> None:
        """Nobody is there to read it."""

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/data/check",
        "raw_path": b"/v1/data/check",
        "query_string": b"",
        "headers": [(b"host", b"localhost:8000"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("localhost", 8000),
        "scheme": "http",
        "http_version": "1.1",
        "asgi": {"version": "3.0"},
        "root_path": "",
    }
    await asyncio.wait_for(served.app(scope, receive, send), 10)
    assert ended.is_set()
