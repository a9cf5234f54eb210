"""Responses in the background: asked for while they run, cancelled, failed, and ended with their server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from openai.types.responses import Response

from tunechat.serve.contract.errors import ErrorRecord, Overloaded
from tunechat.tests.serve.api.adapter_files import upload
from tunechat.tests.serve.api.conftest import Served
from tunechat.tests.serve.api.responses.checked import URL, ask, error_of, whole
from tunechat.tests.serve.api.responses.conftest import Respond


async def begin(served: Served, **fields: Any) -> str:
    response = await served.client.post(URL, json=ask(background=True, **fields))
    assert response.status_code == 200, response.text
    begun = Response.model_validate(response.json())
    assert (begun.status, begun.output, begun.background) == ("queued", [], True)
    return begun.id


async def show(served: Served, id_: str) -> dict[str, Any]:
    response = await served.client.get(f"{URL}/{id_}")
    Response.model_validate(response.json())
    shown: dict[str, Any] = response.json()
    return shown


async def ended(served: Served, id_: str) -> dict[str, Any]:
    """The response, once it has ended."""
    for run, task in list(served.app.state.desk.background._runs.values()):
        if run.exchange.reply.id == id_:
            await task
    return await show(served, id_)


async def test_it_ends_by_itself(respond: Respond) -> None:
    gate = asyncio.Event()
    served = await respond("Hello", engine={"gates": {0: gate}})
    id_ = await begin(served)
    await served.engine.until_waiting(1)
    assert (await show(served, id_))["status"] == "queued"
    assert served.gateway.drain.active_requests == 1
    gate.set()
    shown = await ended(served, id_)
    assert (shown["status"], shown["output"][0]["content"][0]["text"]) == ("completed", "Hello")
    assert shown["usage"]["output_tokens"] == 6
    assert (await whole(served, "b", previous_response_id=id_)).status == "completed"
    assert served.gateway.drain.active_requests == 0
    metrics = (await served.client.get("/metrics")).text
    assert 'tunechat_tokens_total{kind="completion"} 12.0' in metrics


async def test_it_is_cancelled_once(respond: Respond) -> None:
    served = await respond("Hello", engine={"gates": {3: asyncio.Event()}, "chunk": 1})
    id_ = await begin(served)
    await served.engine.until_waiting(1)
    assert (await show(served, id_))["status"] == "in_progress"
    response = await served.client.post(f"{URL}/{id_}/cancel")
    shown = Response.model_validate(response.json())
    assert (shown.status, shown.output_text) == ("cancelled", "Hel")
    assert shown.output[0].status == "incomplete"  # type: ignore[union-attr]
    assert len(served.engine.aborted) == 1
    assert (await served.client.post(f"{URL}/{id_}/cancel")).json() == response.json()


async def test_what_runs_cannot_be_continued(respond: Respond) -> None:
    gate = asyncio.Event()
    served = await respond(engine={"gates": {0: gate}})
    id_ = await begin(served)
    error = error_of(await served.client.post(URL, json=ask(previous_response_id=id_)), 400)
    assert error["code"] == "previous_response_not_found"
    gate.set()
    await ended(served, id_)


async def test_deletion_ends_it(respond: Respond) -> None:
    served = await respond(engine={"gates": {3: asyncio.Event()}, "chunk": 1})
    id_ = await begin(served)
    await served.engine.until_waiting(1)
    assert (await served.client.delete(f"{URL}/{id_}")).status_code == 200
    assert len(served.engine.aborted) == 1
    error_of(await served.client.get(f"{URL}/{id_}"), 404)


async def test_a_failure_is_told(respond: Respond) -> None:
    fault = ErrorRecord(code="engine_failed", message="The engine died.", http_status=503)
    served = await respond(engine={"faults": {2: fault}, "chunk": 1})
    shown = await ended(served, await begin(served))
    assert shown["status"] == "failed"
    assert shown["error"]["message"] == "The engine died. (engine_failed)"
    assert shown["output"][0]["content"][0]["text"] == "He"


async def test_what_is_refused_at_once_leaves_nothing(respond: Respond) -> None:
    served = await respond(engine={"refusal": Overloaded("The queue is full.")})
    error_of(await served.client.post(URL, json=ask(background=True)), 429)
    assert served.gateway.drain.active_requests == 0


async def test_a_draining_server_waits_and_then_ends_it(respond: Respond) -> None:
    gate = asyncio.Event()
    served = await respond(engine={"gates": {3: gate}, "chunk": 1})
    id_ = await begin(served)
    await served.engine.until_waiting(1)
    drain = served.gateway.drain
    drain.begin()
    assert not await drain.wait_idle(0.01)
    drain.force()
    assert await drain.wait_idle(5)
    # The server answers no more; the next one knows how it ended.
    shown = await show(await respond(), id_)
    assert (shown["status"], shown["error"]["code"]) == ("failed", "server_error")
    assert "stopped before" in shown["error"]["message"]


async def test_a_server_that_closes_stores_how_it_ended(respond: Respond) -> None:
    served = await respond(engine={"gates": {3: asyncio.Event()}, "chunk": 1})
    id_ = await begin(served)
    await served.engine.until_waiting(1)
    # As a lifespan ends.
    async with served.app.state.desk.background.lifespan():
        pass
    shown = await show(served, id_)
    assert shown["status"] == "failed"
    assert shown["error"]["message"].startswith("The server is shutting down.")


async def test_its_adapter_is_held_to_its_end(respond: Respond, tmp_path: Path) -> None:
    gate = asyncio.Event()
    served = await respond(engine={"gates": {0: gate}}, adapter_store=tmp_path / "adapters")
    await upload(served, "support")
    response = await served.client.post(URL, json=ask(model="support", background=True))
    begun = response.json()
    assert (begun["model"], response.headers["x-tunechat-adapter"]) == ("support@1", "support@1")

    async def users() -> int:
        return int((await served.client.get("/v1/adapters/support@1")).json()["requests"])

    assert await users() == 1
    gate.set()
    assert (await ended(served, begun["id"]))["status"] == "completed"
    assert await users() == 0
