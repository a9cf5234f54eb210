"""Stored responses over HTTP: shown, listed, continued, deleted; by their tenant alone, and after a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunechat.tests.serve.api.responses.checked import ITEM, URL, ask, error_of, prompt_of, refused, stream, whole
from tunechat.tests.serve.api.responses.conftest import Respond

GONE = "resp_" + "0" * 24


@pytest.mark.parametrize("streamed", [False, True])
async def test_what_was_answered_is_shown_again(respond: Respond, streamed: bool) -> None:
    served = await respond("Hello")
    events = await stream(served) if streamed else []
    told = events[-1]["response"] if streamed else (await served.client.post(URL, json=ask())).json()
    assert told["store"] is True
    assert (await served.client.get(f"{URL}/{told['id']}")).json() == told
    assert (await served.client.get(f"{URL}/{told['id']}?stream=false")).json() == told


async def test_it_is_shown_after_a_restart(respond: Respond) -> None:
    told = (await (await respond()).client.post(URL, json=ask())).json()
    again = await respond("More")
    assert (await again.client.get(f"{URL}/{told['id']}")).json() == told
    await whole(again, "And?", previous_response_id=told["id"])
    assert "user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nAnd?" in prompt_of(again)


async def test_a_conversation_goes_on(respond: Respond) -> None:
    served = await respond("One", "Two", "Three")
    first = await whole(served, "a", instructions="Only now.")
    second = await whole(served, "b", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    events = await stream(served, [{"role": "user", "content": "c"}], previous_response_id=second.id)
    assert events[0]["response"]["previous_response_id"] == second.id
    prompt = prompt_of(served)
    said = [("user", "a"), ("assistant", "One"), ("user", "b"), ("assistant", "Two"), ("user", "c")]
    assert prompt == "".join(f"<|im_start|>{who}\n{text}<|im_end|>\n" for who, text in said) + "<|im_start|>assistant\n"


async def test_calls_are_answered_in_the_next_request(respond: Respond) -> None:
    served = await respond('<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>', "Noon.")
    tools = [{"type": "function", "name": "now"}]
    first = await whole(served, tools=tools)
    call: Any = first.output[0]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "12:00"}
    second = await whole(served, [result], tools=tools, previous_response_id=first.id)
    assert second.output_text == "Noon."
    assert "12:00" in prompt_of(served)


async def test_a_stored_item_can_be_referred_to(respond: Respond) -> None:
    served = await respond("Hello", "Yes")
    first = await whole(served)
    given = [{"type": "item_reference", "id": first.output[0].id}, {"role": "user", "content": "Sure?"}]
    second = await whole(served, given)
    assert "assistant\nHello<|im_end|>\n<|im_start|>user\nSure?" in prompt_of(served)
    # It belongs to both now.
    await served.client.delete(f"{URL}/{first.id}")
    listed = (await served.client.get(f"{URL}/{second.id}/input_items?order=asc")).json()
    assert listed["data"][0]["id"] == first.output[0].id


async def test_what_is_not_to_be_stored_is_not(respond: Respond) -> None:
    served = await respond("One", "Two", "Three")
    first = await whole(served, store=False)
    assert first.model_dump()["store"] is False
    error_of(await served.client.get(f"{URL}/{first.id}"), 404)
    kept = await whole(served)
    unkept = await whole(served, "b", store=False, previous_response_id=kept.id)
    error = await refused(served, input="c", previous_response_id=unkept.id)
    assert (error["param"], error["code"]) == ("previous_response_id", "previous_response_not_found")


async def test_a_server_that_stores_nothing(respond: Respond) -> None:
    for settings in ({"response_store": None}, {"response_retention": 0}):
        served = await respond(**settings)
        reply = await whole(served)
        assert reply.model_dump()["store"] is False
        assert (await refused(served, input="x", store=True))["param"] == "store"
        assert (await refused(served, input="x", background=True))["param"] == "store"
        assert (await refused(served, input="x", previous_response_id=reply.id))["param"] == "previous_response_id"
        error_of(await served.client.get(f"{URL}/{reply.id}"), 404)


@pytest.fixture
def broken(file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_bytes(b"no database" * 1000)


@pytest.mark.usefixtures("broken")
async def test_a_broken_file_stops_nothing_but_storing(respond: Respond) -> None:
    served = await respond()
    reply = await whole(served)
    assert reply.model_dump()["store"] is False
    for response in (
        await served.client.post(URL, json=ask(store=True)),
        await served.client.post(URL, json=ask(previous_response_id=reply.id)),
        await served.client.get(f"{URL}/{reply.id}"),
    ):
        assert error_of(response, 503)["code"] == "store_failed"


async def test_deletion(respond: Respond) -> None:
    served = await respond()
    reply = await whole(served)
    deleted = await served.client.delete(f"{URL}/{reply.id}")
    assert deleted.json() == {"id": reply.id, "object": "response", "deleted": True}
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")):
        error = error_of(await served.client.request(method, f"{URL}/{reply.id}{path}"), 404)
        assert error["code"] == "response_not_found"
    assert (await refused(served, input="x", previous_response_id=reply.id))["param"] == "previous_response_id"


async def test_keys_see_their_own_alone(respond: Respond) -> None:
    served = await respond("One", "Two", api_keys=("key-one", "key-two"))
    one, two = ({"Authorization": f"Bearer key-{name}"} for name in ("one", "two"))
    mine = (await served.client.post(URL, json=ask(), headers=one)).json()
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")):
        error_of(await served.client.request(method, f"{URL}/{mine['id']}{path}", headers=two), 404)
    for given in (
        ask(previous_response_id=mine["id"]),
        ask([{"type": "item_reference", "id": mine["output"][0]["id"]}]),
    ):
        error_of(await served.client.post(URL, json=given, headers=two), 400)
    assert (await served.client.get(f"{URL}/{mine['id']}", headers=one)).json() == mine
    error_of(await served.client.get(f"{URL}/{mine['id']}"), 401)


async def test_input_items_in_pages(respond: Respond) -> None:
    served = await respond()
    given = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [{"type": "output_text", "text": "b"}, {"type": "refusal", "refusal": "c"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "d"}]},
        {"type": "function_call", "call_id": "e", "name": "now", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "e", "output": [{"type": "input_text", "text": "f"}]},
        {"role": "developer", "content": [{"type": "input_text", "text": "g"}]},
    ]
    reply = await whole(served, given)
    path = f"{URL}/{reply.id}/input_items"
    listed = (await served.client.get(f"{path}?order=asc")).json()
    assert [item["type"] for item in listed["data"]] == [
        *("message", "message", "reasoning", "function_call", "function_call_output", "message")
    ]
    ids = [ITEM.validate_python(item).id for item in listed["data"]]
    assert (listed["first_id"], listed["last_id"], listed["has_more"]) == (ids[0], ids[-1], False)
    newest = (await served.client.get(f"{path}?limit=2")).json()
    assert ([item["id"] for item in newest["data"]], newest["has_more"]) == ([ids[5], ids[4]], True)
    rest = (await served.client.get(f"{path}?limit=4&after={ids[4]}")).json()
    assert ([item["id"] for item in rest["data"]], rest["has_more"]) == (ids[3::-1], False)
    for query in ("limit=0", "limit=101", "limit=x", "order=up", "after=msg_1"):
        assert error_of(await served.client.get(f"{path}?{query}"), 400)["param"] == query.split("=")[0]


async def test_a_replay_as_a_stream_is_refused(respond: Respond) -> None:
    served = await respond()
    reply = await whole(served)
    assert error_of(await served.client.get(f"{URL}/{reply.id}?stream=true"), 400)["param"] == "stream"


async def test_only_the_background_is_cancelled(respond: Respond) -> None:
    served = await respond()
    reply = await whole(served)
    assert "background" in error_of(await served.client.post(f"{URL}/{reply.id}/cancel"), 400)["message"]
    error_of(await served.client.post(f"{URL}/{GONE}/cancel"), 404)
    error_of(await served.client.get(f"{URL}/{'x' * 500}"), 404)


async def test_ids_of_clients_do_not_reach_what_is_stored(respond: Respond) -> None:
    served = await respond("One", "Two", "Three")
    first = await whole(served)
    forged = {"id": first.output[0].id, "role": "assistant", "type": "message", "content": "Forged"}
    await whole(served, [forged, {"role": "user", "content": "x"}])
    await whole(served, "And?", previous_response_id=first.id)
    assert "Forged" not in prompt_of(served)
