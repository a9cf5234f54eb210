"""LangChain's ChatOpenAI, unmodified, against a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI

from tunechat.tests.blackbox.server import MODEL, Server

pytestmark = pytest.mark.usefixtures("healthy_at_end")

COUNTS = ("input_tokens", "output_tokens", "total_tokens")
TALK = [
    SystemMessage("You tell stories."),
    HumanMessage("Hello."),
    AIMessage("Hello! What about?"),
    HumanMessage("A long one about a river, please."),
]


@pytest.fixture
async def model(server: Server) -> AsyncIterator[ChatOpenAI]:
    made: dict[str, Any] = {"base_url": f"{server.url}/v1", "api_key": "any"}
    yield ChatOpenAI(model=MODEL, temperature=0, max_completion_tokens=12, stream_usage=True, max_retries=0, **made)


def check_metadata(message: Any) -> None:
    assert message.response_metadata["model_name"] == MODEL
    assert message.response_metadata["finish_reason"] == "length"
    assert message.response_metadata["system_fingerprint"].startswith("fp_")
    usage = message.usage_metadata
    assert usage["output_tokens"] == 12
    assert usage["total_tokens"] == usage["input_tokens"] + 12
    assert usage["input_tokens"] > 20


def test_invoke_and_stream_are_the_same_message(model: ChatOpenAI) -> None:
    whole = model.invoke(TALK)
    check_metadata(whole)
    chunks = list(model.stream(TALK))
    assert len(chunks) > 5
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    check_metadata(total)
    assert total.text == whole.text
    assert [total.usage_metadata[key] for key in COUNTS] == [whole.usage_metadata[key] for key in COUNTS]
    assert total.usage_metadata["input_token_details"]["cache_read"] > 0


def test_batch_keeps_the_order(model: ChatOpenAI) -> None:
    questions = ["Name a fruit.", "Name a river.", "Name a planet."]
    alone = [model.invoke(question).text for question in questions]
    together = model.batch(questions)
    assert [message.text for message in together] == alone
    assert len(set(alone)) == 3


async def test_asynchronous(model: ChatOpenAI) -> None:
    whole = await model.ainvoke(TALK)
    assert "".join([chunk.text async for chunk in model.astream(TALK)]) == whole.text


def test_errors_and_logprobs_pass_through(model: ChatOpenAI) -> None:
    scored = model.bind(logprobs=True, top_logprobs=1).invoke(TALK)
    assert len(scored.response_metadata["logprobs"]["content"]) == 12
    with pytest.raises(openai.BadRequestError) as refused:
        model.bind(functions=[{"name": "f"}]).invoke("Hello")
    assert (refused.value.param, refused.value.code) == ("functions", "unsupported")
