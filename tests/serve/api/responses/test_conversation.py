"""Items as messages: turns put together, what stands first for the system, and what cannot be read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.api.responses.conversation import read_conversation
from tunechat.serve.api.responses.items import (
    call_error,
    call_item,
    message_item,
    output_text,
    reasoning_item,
    server_call_item,
)
from tunechat.serve.api.schemas.chat import ChatRequest
from tunechat.serve.contract.errors import InvalidRequest


def said(role: str, *texts: str) -> dict[str, Any]:
    parts = [output_text(text) if role == "assistant" else {"type": "input_text", "text": text} for text in texts]
    return message_item(role, parts)


def result(call_id: str, output: Any) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": output}


def called(*ids: str) -> list[dict[str, Any]]:
    return [{"type": "function", "id": id_, "function": {"name": "f", "arguments": "{}"}} for id_ in ids]


def call(id_: str) -> dict[str, Any]:
    return call_item(id_, "f", "{}")


def messages(*items: dict[str, Any], instructions: str | None = None) -> list[dict[str, Any]]:
    return read_conversation(instructions, [], items).messages


def test_what_leads_for_the_system_is_one_message() -> None:
    lead = [said("developer", "b"), said("system", "c")]
    assert messages(*lead, said("user", "d"), said("developer", "e"), instructions="a") == [
        {"role": "system", "content": "a\n\nb\n\nc"},
        {"role": "user", "content": "d"},
        {"role": "developer", "content": "e"},
    ]
    assert messages(instructions="a") == [{"role": "system", "content": "a"}]


def test_reasoning_text_and_calls_are_one_turn() -> None:
    items = [
        said("user", "a"),
        reasoning_item(["hm"]),
        said("assistant", "b", "c"),
        call("1"),
        call("2"),
        result("1", "x"),
        result("2", [{"type": "input_text", "text": "y"}, {"type": "input_text", "text": "z"}]),
        call("3"),
    ]
    assert messages(*items) == [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b\nc", "reasoning_content": "hm", "tool_calls": called("1", "2")},
        {"role": "tool", "tool_call_id": "1", "content": "x"},
        {"role": "tool", "tool_call_id": "2", "content": "y\nz"},
        {"role": "assistant", "content": None, "tool_calls": called("3")},
    ]


def test_text_after_a_call_belongs_to_its_turn() -> None:
    items = [said("assistant", "a"), call("1"), said("assistant", "b"), result("1", "x")]
    assert messages(*items)[0] == {"role": "assistant", "content": "ab", "tool_calls": called("1")}


def test_what_a_user_says_in_a_row_is_one_message() -> None:
    assert messages(said("user", "a"), said("user", "b", "c"), said("assistant", "d"), said("user", "e")) == [
        {"role": "user", "content": "a\n\nb\nc"},
        {"role": "assistant", "content": "d"},
        {"role": "user", "content": "e"},
    ]


def test_messages_of_the_assistant_stay_apart() -> None:
    assert [one["content"] for one in messages(said("assistant", "a"), said("assistant", "b"))] == ["a", "b"]


def test_thoughts_go_with_their_own_turn_alone() -> None:
    items = [reasoning_item(["hm"]), said("user", "a"), said("assistant", "b")]
    assert "reasoning_content" not in messages(*items)[1]
    summarised = [reasoning_item([], summary=["so"]), call("1")]
    assert messages(*summarised)[0]["reasoning_content"] == "so"


def test_calls_that_the_server_ran_are_turns_with_their_results() -> None:
    good, bad = server_call_item("f", "{}"), server_call_item("f", "{}", "failed")
    good["output"], bad["error"] = "4", call_error("No.")
    told = messages(said("user", "a"), said("assistant", "b"), good, bad, said("assistant", "c"))
    assert [one["role"] for one in told] == ["user", "assistant", "tool", "assistant", "tool", "assistant"]
    assert told[1]["content"] == "b"
    assert [told[2]["content"], told[4]["content"], told[5]["content"]] == ["4", "No.", "c"]


def test_names_in_namespaces_are_those_that_the_model_knows() -> None:
    item = call_item("1", "look", "{}", namespace="mcp__docs")
    assert messages(item)[0]["tool_calls"][0]["function"]["name"] == "mcp__docs__look"


def test_each_message_knows_where_it_is_from() -> None:
    context = [said("user", "a"), call("1")]
    given = [result("1", "x"), said("system", "b"), call("2"), call("3")]
    told = read_conversation("i", context, given)
    early = "previous_response_id"
    assert told.paths == ["instructions", early, early, "input[0]", "input[1]", "input[2]"]
    assert told.call_paths == [[], [], [early], [], [], ["input[2]", "input[3]"]]
    assert read_conversation(None, [], [said("system", "b")]).paths == ["input[0]"]


@pytest.mark.parametrize(
    ("items", "param"),
    [
        ([], "input"),
        ([result("1", "x")], "input[0].call_id"),
        ([call("1"), result("2", "x")], "input[1].call_id"),
        ([call(str(number)) for number in range(129)], "input[128]"),
        ([said("user", "x"), said("assistant", "y")] * 2049, "input"),
    ],
    ids=["nothing", "no call", "another call", "too many calls", "too many messages"],
)
def test_what_cannot_be_read_is_named(items: list[dict[str, Any]], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        messages(*items)
    assert refused.value.param == param


ids = st.sampled_from("123")
anything = st.lists(
    st.one_of(
        st.builds(said, st.sampled_from(["user", "assistant", "system", "developer"]), st.text(max_size=5)),
        ids.map(call),
        st.builds(result, ids, st.text(max_size=5)),
        st.text(max_size=5).map(lambda text: reasoning_item([text])),
        st.just(server_call_item("f", "{}")),
    ),
    max_size=12,
)


@given(anything, st.none() | st.text(max_size=5))
def test_whatever_comes_is_a_chat_or_refused(items: list[dict[str, Any]], instructions: str | None) -> None:
    try:
        told = read_conversation(instructions, [], items)
    except InvalidRequest as error:
        assert (error.param or "").startswith("input")
        return
    ChatRequest.model_validate({"model": "m", "messages": told.messages})
    assert len(told.messages) == len(told.paths) == len(told.call_paths)
    made: set[str] = set()
    for message, paths in zip(told.messages, told.call_paths, strict=True):
        calls = [one["id"] for one in message.get("tool_calls", ())]
        assert len(calls) == len(paths)
        made |= set(calls)
        if message["role"] == "tool":
            assert message["tool_call_id"] in made
    # Nothing that was said is lost.
    words = "".join(str(message["content"] or "") for message in told.messages)
    for item in items:
        if item["type"] == "message":
            assert item["content"][0]["text"] in words
