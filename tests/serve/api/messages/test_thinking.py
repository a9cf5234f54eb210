"""A model that reasons: its thoughts are blocks of their own, signed, and shown to it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tunechat.serve.text import ModelText
from tunechat.tests.serve.api.conftest import Serve
from tunechat.tests.serve.api.messages.conftest import Connect, ask, prompt_of, stream, whole
from tunechat.tests.serve.api.test_reasoning import CALL, THOUGHT, write_thinker

ON = {"type": "enabled", "budget_tokens": 1024}
TOOLS = [{"name": "now", "input_schema": {"type": "object"}}]


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_thinker(tmp_path_factory.mktemp("thinker"))


@pytest.fixture(scope="module")
def text(entry: Path) -> ModelText:
    return ModelText.load(entry)


async def test_thoughts_are_a_signed_block_before_the_answer(serve: Serve, connect: Connect) -> None:
    served = await serve({"answer": f"{THOUGHT}Yes."})
    thought, answer = (await whole(served, ask(thinking=ON))).content
    assert thought.type == "thinking" and thought.thinking == "Hm, 2 < 3."
    assert answer.to_dict() == {"type": "text", "text": "Yes."}
    assert len(thought.signature) > 40
    async with connect(served).messages.stream(**ask(thinking=ON)) as streamed:
        final = await streamed.get_final_message()
    assert [block.to_dict() for block in final.content] == [thought.to_dict(), answer.to_dict()]


async def test_a_stream_signs_thoughts_at_their_end(serve: Serve) -> None:
    events = await stream(await serve({"answer": f"{THOUGHT}Yes."}), ask(thinking=ON))
    deltas = [(event["index"], event["delta"]["type"]) for event in events if event["type"] == "content_block_delta"]
    assert list(dict.fromkeys(deltas)) == [(0, "thinking_delta"), (0, "signature_delta"), (1, "text_delta")]
    assert deltas.count((0, "signature_delta")) == 1
    starts = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert starts == [{"type": "thinking", "thinking": "", "signature": ""}, {"type": "text", "text": ""}]


async def test_thoughts_that_are_not_to_be_shown_are_signed_all_the_same(serve: Serve) -> None:
    served = await serve({"answer": f"{THOUGHT}Yes."})
    thought, _ = (await whole(served, ask(thinking={"type": "adaptive", "display": "omitted"}))).content
    shown, _ = (await whole(served, ask(thinking={"type": "adaptive"}))).content
    assert thought.type == shown.type == "thinking"
    assert (thought.thinking, thought.signature) == ("", shown.signature)


@pytest.mark.parametrize("thinking", [None, {"type": "disabled"}])
async def test_nobody_thinks_unasked(serve: Serve, thinking: Any) -> None:
    served = await serve({"answer": "Yes."})
    (block,) = (await whole(served, ask(thinking=thinking))).content
    assert block.type == "text"
    assert prompt_of(served).endswith("<think>\n\n</think>\n\n")
    await whole(served, ask(thinking=ON))
    assert prompt_of(served).endswith("assistant\n")


async def test_thoughts_and_calls_come_back(serve: Serve) -> None:
    served = await serve({"answer": THOUGHT + CALL, "context": 4096})
    body = ask(thinking=ON, tools=TOOLS)
    message = await whole(served, body)
    assert [block.type for block in message.content] == ["thinking", "tool_use"]
    said = [block.to_dict() for block in message.content]
    result = {"type": "tool_result", "tool_use_id": said[1]["id"], "content": "noon"}
    turns = [*body["messages"], {"role": "assistant", "content": said}, {"role": "user", "content": [result]}]
    await whole(served, body | {"messages": turns})
    assert "<think>Hm, 2 < 3.</think>" in prompt_of(served)
