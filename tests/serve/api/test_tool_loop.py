"""Answers in which the server runs tools, with an engine that follows a script."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from tunechat.serve.contract.errors import ConfigError
from tunechat.tests.serve.api.harness import call as call_app
from tunechat.tests.serve.api.harness import chat, events_of, make_scope
from tunechat.tests.serve.api.test_tools import allows
from tunechat.tests.serve.api.tool_bench import (
    ANSWERS,
    CALL,
    DELETE,
    ECHO,
    MINE,
    SLOW,
    URL,
    Make,
    assembled,
    made,
    steps_of,
)


def untimed(extra: Any) -> Any:
    """`tunechat` without what no two runs share."""
    steps = [
        {**step, "tool_call": step["tool_call"] | {"id": ""}, "tool_result": step["tool_result"] | {"seconds": 0}}
        for step in extra["steps"]
    ]
    return {"steps": steps, "spent": extra["spent"] | {"seconds": 0}}


class TestAnswer:
    async def test_calls_are_run_and_the_model_goes_on(self, bench: Make) -> None:
        it = await bench(*ANSWERS)
        reply = await it.whole(ECHO)
        choice = ChatCompletion.model_validate(reply).choices[0]
        assert (choice.finish_reason, choice.message.content) == ("stop", "Let me see.\n\nIt is xxx.")
        assert choice.message.tool_calls is None
        (step,) = reply["choices"][0]["message"]["tunechat"]["steps"]
        assert step["tool_call"]["name"] == "echo"
        assert json.loads(step["tool_call"]["arguments"]) == {"text": "x", "times": 3}
        assert (step["tool_result"]["status"], step["tool_result"]["content"]) == ("ok", "xxx")
        assert it.work.ran == ["echo"]
        assert '"name": "echo"' in it.prompt(0) and "xxx" not in it.prompt(0)
        assert it.prompt(1).startswith(it.prompt(0)) and "echo: xxx" in it.prompt(1)

    async def test_usage_is_of_all_turns(self, bench: Make) -> None:
        it = await bench(*ANSWERS)
        usage = (await it.whole(ECHO))["usage"]
        assert usage["prompt_tokens"] == sum(len(prompt) for prompt, _ in it.engine.submitted)
        assert usage["completion_tokens"] == sum(len(answer) + 1 for answer in ANSWERS)
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]

    async def test_what_was_spent_is_told(self, bench: Make) -> None:
        spent = (await (await bench(*ANSWERS)).message(ECHO))["tunechat"]["spent"]
        assert 0 <= spent.pop("seconds") < 60
        assert spent == {"rounds": 1, "calls": 1, "output_bytes": 3, "limit": None}

    async def test_calls_of_one_turn_run_together(self, bench: Make) -> None:
        it = await bench(CALL + "\n" + made("echo", text="y"), CALL, "Done.")
        message = await it.message(ECHO)
        steps = message["tunechat"]["steps"]
        assert [(step["index"], step["round"], step["tool_result"]["content"]) for step in steps] == [
            (0, 0, "xxx"),
            (1, 0, "y"),
            (2, 1, "xxx"),
        ]
        assert len({step["tool_call"]["id"] for step in steps}) == 3
        assert message["content"] == "Done."

    async def test_no_calls_are_no_steps(self, bench: Make) -> None:
        message = await (await bench("Hello.")).message(ECHO)
        assert (message["content"], message["tunechat"]["steps"]) == ("Hello.", [])

    async def test_every_call_is_audited(self, bench: Make) -> None:
        it = await bench(*ANSWERS)
        step = (await it.message(ECHO))["tunechat"]["steps"][0]
        (line,) = it.work.audited
        assert (line["id"], line["tool"], line["status"]) == (step["tool_call"]["id"], "echo", "ok")
        counted = (await it.served.client.get("/metrics")).text
        assert 'tunechat_tool_calls_total{status="ok",tool="echo"} 1.0' in counted


class TestStream:
    async def test_the_client_of_openai_makes_the_whole_reply_of_it(self, bench: Make) -> None:
        answers = ["Let me see.\n" + CALL + "\n" + made("echo", text="y"), "So.\n" + CALL, "It is xxx."]
        whole = await (await bench(*answers)).message(ECHO)
        streamed = assembled(await (await bench(*answers)).chunks(ECHO))
        assert streamed.finish_reason == "stop"
        assert streamed.message.content == whole["content"] == "Let me see.\n\nSo.\n\nIt is xxx."
        assert not streamed.message.tool_calls
        assert untimed(streamed.message.tunechat) == untimed(whole["tunechat"])

    async def test_nothing_is_a_tool_call_of_the_clients(self, bench: Make) -> None:
        chunks = await (await bench(*ANSWERS)).chunks(ECHO, stream_options={"include_usage": True})
        deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
        assert not any("tool_calls" in delta for delta in deltas)
        told = [delta["tunechat"] for delta in deltas if "tunechat" in delta]
        assert [sorted(entry) for entry in told] == [["steps"], ["steps"], ["spent"]]
        assert [sorted(entry["steps"][0]) for entry in told[:2]] == [
            ["index", "round", "tool_call"],
            ["index", "tool_result"],
        ]
        assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]][-2:] == [None, "stop"]
        assert chunks[-1]["usage"]["completion_tokens"] == sum(len(answer) + 1 for answer in ANSWERS)

    async def test_a_call_is_told_before_its_result_is_there(self, bench: Make) -> None:
        it = await bench(made("slow", text="x"))
        told: list[bytes] = []
        leave = asyncio.Event()

        async def on_send(message: Any) -> None:
            told.append(message.get("body", b""))
            if b'"tool_call"' in told[-1]:
                await it.work.started(1)
                leave.set()

        body = json.dumps(chat(stream=True, tools=[SLOW])).encode()
        scope = make_scope("POST", URL, {"content-type": "application/json"})
        await asyncio.wait_for(call_app(it.served.app, scope, body, leave=leave, on_send=on_send), 10)
        assert b'"tool_result"' not in b"".join(told)
        assert it.work.cancelled == ["x"]

    async def test_an_error_of_a_later_turn_is_an_event(self, bench: Make) -> None:
        it = await bench(*ANSWERS)
        generate = it.engine.generate

        def once(*args: Any, **keywords: Any) -> Any:
            it.engine.refusal = ConfigError("no") if it.engine.sequences else None
            return generate(*args, **keywords)

        it.engine.generate = once
        response = await it.served.client.post(URL, json=chat(stream=True, tools=[ECHO]))
        *chunks, error = events_of(response.content)
        assert error["error"]["code"] == "internal_error"
        assert [step["tool_result"]["content"] for step in steps_of(chunks) if "tool_result" in step] == ["xxx"]


class TestClientFunctions:
    async def test_a_call_of_the_clients_ends_the_turn_and_loses_no_result(self, bench: Make) -> None:
        it = await bench(f"{CALL}\n{made('mine', a=1)}\n{made('echo', text='y')}\n{made('mine', a=2)}")
        chunks = await it.chunks(ECHO, MINE)
        choice = assembled(chunks)
        assert choice.finish_reason == "tool_calls"
        assert [json.loads(call.function.arguments) for call in choice.message.tool_calls] == [{"a": 1}, {"a": 2}]
        assert [step["tool_result"]["content"] for step in choice.message.tunechat["steps"]] == ["xxx", "y"]
        indices = [
            call["index"] for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", ()) if call
        ]
        assert indices == sorted(indices) and set(indices) == {0, 1}
        assert len(it.engine.submitted) == 1

    async def test_what_is_sent_back_is_what_the_model_reads(self, bench: Make) -> None:
        it = await bench(f"{CALL}\n{made('mine', a=1)}", "So 7xxx.")
        asked = {"role": "user", "content": "Hi"}
        message = await it.message(ECHO, MINE, messages=[asked])
        result = {"role": "tool", "tool_call_id": message["tool_calls"][0]["id"], "content": "seven"}
        reply = await it.message(ECHO, MINE, messages=[asked, message, result])
        assert reply["content"] == "So 7xxx."
        told = it.prompt(1)
        assert told.index("echo: xxx") < told.index('"name": "mine", "arguments": {"a": 1}') < told.index("mine: seven")

    async def test_a_turn_of_the_clients_calls_alone_is_as_ever(self, bench: Make) -> None:
        message = await (await bench(made("mine", a=1))).message(ECHO, MINE)
        assert len(message["tool_calls"]) == 1
        assert message["content"] is None and message["tunechat"]["steps"] == []


class TestBudget:
    async def test_a_model_that_calls_for_ever_is_asked_for_its_answer(self, bench: Make) -> None:
        it = await bench(*[CALL] * 3, "Enough.", budget={"rounds": 3})
        reply = await it.whole(ECHO)
        (choice,) = reply["choices"]
        assert (choice["finish_reason"], choice["message"]["content"]) == ("stop", "Enough.")
        assert choice["message"]["tunechat"]["spent"]["limit"] == "rounds"
        assert it.work.ran == ["echo"] * 3
        assert '"name": "echo", "description"' not in it.prompt(3)

    async def test_it_ends_even_where_the_model_still_calls(self, bench: Make) -> None:
        it = await bench(*[CALL] * 9, budget={"rounds": 2})
        (choice,) = (await it.whole(ECHO))["choices"]
        assert it.work.ran == ["echo"] * 2 and len(it.engine.submitted) == 3
        assert choice["finish_reason"] == "stop" and "tool_calls" not in choice["message"]

    async def test_the_clients_functions_stay(self, bench: Make) -> None:
        it = await bench(CALL, made("mine", a=1), budget={"rounds": 1})
        (choice,) = (await it.whole(ECHO, MINE))["choices"]
        assert (
            choice["finish_reason"] == "tool_calls" and choice["message"]["tool_calls"][0]["function"]["name"] == "mine"
        )
        grammar = it.engine.submitted[1][1].grammar
        assert allows(grammar, made("mine", a=1)) and not allows(grammar, made("echo", text="x"))

    async def test_a_thousand_calls_of_one_turn_end_at_the_limit(self, bench: Make) -> None:
        it = await bench("\n".join([made("echo", text="x")] * 100), "Enough.", budget={"calls": 4})
        message = await it.message(ECHO)
        statuses = [step["tool_result"]["status"] for step in message["tunechat"]["steps"]]
        assert (statuses.count("ok"), statuses.count("budget")) == (4, 96)
        assert message["tunechat"]["spent"]["limit"] == "calls" and len(it.engine.submitted) == 2

    async def test_max_tokens_is_of_all_turns(self, bench: Make) -> None:
        it = await bench(*ANSWERS)
        used = len(ANSWERS[0]) + 1
        (choice,) = (await it.whole(ECHO, max_tokens=used + 4))["choices"]
        assert (choice["finish_reason"], choice["message"]["content"]) == ("length", "Let me see.\n\nIt i")
        it = await bench(*ANSWERS)
        (choice,) = (await it.whole(ECHO, max_completion_tokens=used))["choices"]
        assert choice["finish_reason"] == "length" and len(it.engine.submitted) == 1
        assert choice["message"]["tunechat"]["spent"]["limit"] == "max_tokens"

    async def test_results_that_leave_no_room_end_the_answer(self, bench: Make) -> None:
        it = await bench(made("echo", text="x" * 90, times=100), "Never.", engine={"context": 4096})
        (choice,) = (await it.whole(ECHO))["choices"]
        assert choice["finish_reason"] == "length" and len(it.engine.submitted) == 1
        assert choice["message"]["tunechat"]["spent"]["limit"] == "context"
        assert choice["message"]["tunechat"]["steps"][0]["tool_result"]["status"] == "ok"

    async def test_a_call_that_the_limit_cuts_is_not_run(self, bench: Make) -> None:
        it = await bench(CALL)
        (choice,) = (await it.whole(ECHO, max_tokens=len(CALL) - 20))["choices"]
        assert choice["finish_reason"] == "length" and it.work.ran == []
        (step,) = choice["message"]["tunechat"]["steps"]
        assert step["tool_result"]["status"] == "error" and "not run" in step["tool_result"]["content"]
        asked = {"role": "user", "content": "Hi"}
        it.engine.answers.append("Once more.")
        assert (await it.message(ECHO, messages=[asked, choice["message"], asked]))["content"] == "Once more."


class TestChoice:
    @pytest.mark.parametrize(
        "choice",
        [
            "required",
            {"type": "function", "function": {"name": "echo"}},
            {"type": "tunechat", "name": "echo"},
            {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [ECHO]}},
        ],
        ids=["required", "named", "named as the server's", "allowed"],
    )
    async def test_a_call_that_must_be_made_is_made_once(self, bench: Make, choice: Any) -> None:
        it = await bench(CALL, "It is xxx.")
        assert (await it.message(ECHO, DELETE, tool_choice=choice))["content"] == "It is xxx."
        first, second = (params.grammar for _, params in it.engine.submitted)
        assert allows(first, CALL) and not allows(first, "No.")
        assert allows(second, CALL) and allows(second, "No.")
        if isinstance(choice, dict) and choice["type"] == "allowed_tools":
            assert not allows(second, made("delete", text="x"))

    async def test_none_offers_nothing(self, bench: Make) -> None:
        it = await bench(CALL)
        assert (await it.message(ECHO, tool_choice="none"))["content"] == CALL
        assert it.work.ran == []


class TestLeaving:
    async def test_a_client_that_leaves_stops_the_tools(self, bench: Make) -> None:
        it = await bench(made("slow", text="a") + "\n" + made("slow", text="b"))
        leave = asyncio.Event()
        body = json.dumps(chat(tools=[SLOW])).encode()
        scope = make_scope("POST", URL, {"content-type": "application/json"})
        request = asyncio.create_task(call_app(it.served.app, scope, body, leave=leave))
        await it.work.started(2)
        leave.set()
        await asyncio.wait_for(request, 10)
        assert sorted(it.work.cancelled) == ["a", "b"]
        assert not it.served.gateway.drain.active_requests

    async def test_the_time_of_a_request_is_of_all_of_it(self, bench: Make) -> None:
        it = await bench(made("slow", text="a"), request_timeout=0.3)
        response = await it.served.client.post(URL, json=chat(tools=[SLOW]))
        assert (response.status_code, response.json()["error"]["code"]) == (504, "generation_timeout")
        assert it.work.cancelled == ["a"]

    async def test_a_server_that_leaves_lets_an_answer_finish(self, bench: Make) -> None:
        gate = asyncio.Event()
        it = await bench(*ANSWERS, engine={"gates": {16: gate}})
        request = asyncio.create_task(it.message(ECHO))
        await it.engine.until_waiting(1)
        it.served.gateway.drain.begin()
        gate.set()
        assert (await request)["content"].endswith("It is xxx.")

    @pytest.mark.parametrize("streaming", [True, False])
    async def test_one_that_has_not_begun_is_told_so(self, bench: Make, streaming: bool) -> None:
        it = await bench(*ANSWERS, engine={"gates": {0: asyncio.Event()}})
        request = asyncio.create_task(it.served.client.post(URL, json=chat(tools=[ECHO], stream=streaming)))
        await it.engine.until_waiting(1)
        it.served.gateway.drain.begin()
        response = await asyncio.wait_for(request, 10)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "shutting_down")

    async def test_the_end_of_its_grace_stops_the_tools(self, bench: Make) -> None:
        it = await bench(made("slow", text="a"))
        request = asyncio.create_task(it.served.client.post(URL, json=chat(tools=[SLOW])))
        await it.work.started(1)
        it.served.gateway.drain.force()
        response = await asyncio.wait_for(request, 10)
        assert (response.status_code, response.json()["error"]["code"]) == (503, "stopping")
        assert it.work.cancelled == ["a"]
