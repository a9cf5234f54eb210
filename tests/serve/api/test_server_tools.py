"""Which tools a key may have the server run, how requests name them, and what LangChain makes of the answers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI

from tunechat.serve.contract.errors import ConfigError
from tunechat.tests.serve.api.conftest import Serve
from tunechat.tests.serve.api.harness import chat
from tunechat.tests.serve.api.tool_bench import ANSWERS, DELETE, ECHO, MINE, ROOM, URL, Make, made
from tunechat.tools.agent.model import ChatTuneChat
from tunechat.tools.toolbox import Toolbox


class TestPolicy:
    async def test_where_it_says_ask_the_answer_is_no_and_the_model_is_told(self, bench: Make) -> None:
        it = await bench(made("delete", text="all"), "I may not.")
        message = await it.message(DELETE)
        told = message["tunechat"]["steps"][0]["tool_result"]
        assert told["status"] == "refused" and "consent of a person" in told["content"]
        assert told["content"] in it.prompt(1)
        assert it.work.ran == [] and it.work.audited[0]["by"] == "nobody"
        assert message["content"] == "I may not."

    async def test_each_key_has_its_own(self, bench: Make) -> None:
        answers = [made("delete", text="all"), "Done."] * 2
        policies = {"key-of-one": ("delete=always",), "key-of-two": ("echo=never",)}
        settings: Any = {"api_keys": ("key-of-one", "key-of-two", "key-of-three"), "tool_policies": policies}
        it = await bench(*answers, **settings)
        client = it.served.client

        async def with_key(key: str) -> None:
            client.headers["authorization"] = f"Bearer {key}"

        await with_key("key-of-one")
        assert (await it.message(DELETE))["tunechat"]["steps"][0]["tool_result"]["status"] == "ok"
        await with_key("key-of-three")
        assert (await it.message(DELETE))["tunechat"]["steps"][0]["tool_result"]["status"] == "refused"
        await with_key("key-of-two")
        refused = await client.post(URL, json=chat(tools=[ECHO]))
        assert refused.status_code == 400 and refused.json()["error"]["param"] == "tools[0].name"
        names = [tool["name"] for tool in (await client.get("/v1/tools")).json()["data"]]
        assert "echo" not in names and "delete" in names

    async def test_never_holds_for_every_key(self, bench: Make) -> None:
        it = await bench(
            made("echo", text="secret"), "No.", rules=("echo(text=secret)=never",), tool_policies={"k" * 8: ()}
        )
        assert (await it.message(ECHO))["tunechat"]["steps"][0]["tool_result"]["status"] == "refused"
        it = await bench(
            made("echo", text="secret"),
            "No.",
            rules=("*(text=secret)=never",),
            api_keys=("k" * 8,),
            tool_policies={"k" * 8: ("echo=always",)},
        )
        it.served.client.headers["authorization"] = "Bearer " + "k" * 8
        assert (await it.message(ECHO))["tunechat"]["steps"][0]["tool_result"]["status"] == "refused"

    async def test_a_tool_that_the_request_does_not_name_is_not_run(self, bench: Make) -> None:
        it = await bench(made("delete", text="all"), rules=("delete=always",))
        message = await it.message(ECHO)
        assert it.work.ran == [] and message["tunechat"]["steps"] == []


class TestRefusals:
    @pytest.mark.parametrize(
        ("fields", "param", "hint"),
        [
            ({"tools": [MINE, {"type": "tunechat", "name": "nope"}]}, "tools[1].name", "It runs: echo, delete"),
            ({"tools": [{"type": "tunechat", "name": "broken2"}]}, "tools[0].name", "functions"),
            ({"tools": [{"type": "tunechat"}]}, "tools[0].name", "/v1/tools"),
            ({"tools": [{"type": "tunechat", "name": 7}]}, "tools[0].name", "/v1/tools"),
            ({"tools": [ECHO, ECHO]}, "tools[1].name", "leave one out"),
            (
                {"tools": [{"type": "function", "function": {"name": "echo"}}, ECHO]},
                "tools[1].name",
                "leave one out",
            ),
            ({"tools": [ECHO], "n": 2}, "n", "'n': 1"),
            ({"tools": [ECHO], "logprobs": True}, "logprobs", "tools"),
            ({"tools": [ECHO], "tool_choice": {"type": "tunechat", "name": "delete"}}, "tool_choice", "delete"),
            ({"tools": [ECHO, {"type": "custom"}]}, "tools[1].type", "function"),
        ],
    )
    async def test_what_is_wrong_is_named(self, bench: Make, fields: Any, param: str, hint: str) -> None:
        it = await bench("Hello.")
        response = await it.served.client.post(URL, json=chat() | fields)
        assert response.status_code == 400
        error = response.json()["error"]
        assert error["param"] == param and hint in error["message"]
        assert not it.engine.submitted

    async def test_a_server_without_tools_says_so(self, serve: Serve) -> None:
        served = await serve(ROOM)
        response = await served.client.post(URL, json=chat(tools=[ECHO]))
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (400, "tools[0].type")
        assert "server_tools" in error["message"]
        assert (await served.client.get("/v1/tools")).json() == {"object": "list", "data": []}

    async def test_a_place_in_messages_stays_the_clients(self, bench: Make) -> None:
        it = await bench("Hello.")
        step = {"tool_call": {"id": "1", "name": "echo", "arguments": "{}"}, "tool_result": {"content": "x"}}
        wrong = {"role": "assistant", "tool_calls": [{"function": {"name": "mine", "arguments": "["}}]}
        messages = [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "x", "tunechat": {"steps": [step] * 3}},
            wrong,
        ]
        response = await it.served.client.post(URL, json=chat(tools=[ECHO], messages=messages))
        assert response.json()["error"]["param"].startswith("messages[2].tool_calls[0]")

    async def test_a_broken_tool_is_told_to_the_model_alone(self, bench: Make) -> None:
        it = await bench(made("broken", text="x"), "Sorry.")
        told = (await it.message({"type": "tunechat", "name": "broken"}))["tunechat"]["steps"][0]["tool_result"]
        assert told["status"] == "error" and "RuntimeError" in told["content"]


class TestOpening:
    async def test_the_list_is_of_what_may_be_run(self, bench: Make) -> None:
        it = await bench(rules=("broken=never",), server_tools=("e*", "delete", "broken"))
        listed = (await it.served.client.get("/v1/tools")).json()["data"]
        assert [(tool["type"], tool["name"], tool["permission"]) for tool in listed] == [
            ("tunechat", "echo", "always"),
            ("tunechat", "delete", "ask"),
        ]
        assert listed[0]["parameters"]["required"] == ["text"]

    async def test_it_is_closed_with_the_server(self, bench: Make) -> None:
        it = await bench(*ANSWERS)
        await it.message(ECHO)
        assert it.closed == []
        await it.served.gateway.close()
        assert it.closed == [True]

    async def test_tools_that_fail_to_open_cost_no_other_request(self, serve: Serve) -> None:
        @contextlib.asynccontextmanager
        async def opened() -> AsyncIterator[Toolbox]:
            raise ConfigError("/home/me/tools.py failed")
            yield

        served = await serve(ROOM | {"answer": "Hello."}, open_tools=opened, server_tools=("echo",))
        response = await served.client.post(URL, json=chat(tools=[ECHO]))
        assert (response.status_code, response.json()["error"]["code"]) == (503, "tools_failed")
        assert (await served.client.get("/v1/tools")).status_code == 503
        assert (await served.client.post(URL, json=chat())).status_code == 200


@pytest.mark.parametrize("streaming", [False, True])
async def test_langchain_keeps_the_steps_and_sends_them_back(bench: Make, streaming: bool) -> None:
    it = await bench(*ANSWERS, "Again: xxx.")
    model = ChatTuneChat(
        model="tiny", base_url="http://localhost:8000/v1", http_async_client=it.served.client, max_retries=0
    ).bind_tools([ECHO])
    if streaming:
        chunks = [chunk async for chunk in model.astream("Hi")]
        message = chunks[0]
        for chunk in chunks[1:]:
            message += chunk  # type: ignore[operator,assignment]
    else:
        message = await model.ainvoke("Hi")  # type: ignore[assignment]
    assert message.text == "Let me see.\n\nIt is xxx." and message.tool_calls == []
    (step,) = message.additional_kwargs["tunechat"]["steps"]
    assert (step["tool_call"]["name"], step["tool_result"]["content"]) == ("echo", "xxx")
    assert message.response_metadata["finish_reason"] == "stop"
    assert message.usage_metadata is not None
    assert message.usage_metadata["output_tokens"] == sum(len(answer) + 1 for answer in ANSWERS)
    again = await model.ainvoke([HumanMessage("Hi"), message, HumanMessage("Again?")])
    assert again.text == "Again: xxx." and "echo: xxx" in it.prompt(2)


async def test_langchains_own_model_passes_over_the_steps(bench: Make) -> None:
    it = await bench(*ANSWERS)
    model = ChatOpenAI(
        model="tiny",
        base_url="http://localhost:8000/v1",
        api_key="any",  # type: ignore[arg-type]
        http_async_client=it.served.client,
        extra_body={"tools": [ECHO]},
        use_responses_api=False,
        max_retries=0,
    )
    chunks = [chunk async for chunk in model.astream("Hi")]
    assert "".join(chunk.text for chunk in chunks) == "Let me see.\n\nIt is xxx."
    assert not any(chunk.tool_call_chunks for chunk in chunks)
    assert [
        chunk.response_metadata["finish_reason"] for chunk in chunks if chunk.response_metadata.get("finish_reason")
    ] == ["stop"]
