"""LangChain's tools and structured output, unmodified, against a real server."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

from tunechat.tests.blackbox.server import MODEL, Server

pytestmark = pytest.mark.usefixtures("healthy_at_end")


class Person(BaseModel):
    """A person."""

    name: str = Field(max_length=20)
    age: int = Field(ge=0, le=120)
    mood: Literal["happy", "sad"]


@tool
def multiply(a: int, b: int) -> int:
    """Multiplies two numbers."""
    return a * b


@tool
def shout(word: Literal["hey", "ho"]) -> str:
    """Says a word aloud."""
    return word.upper()


@pytest.fixture
def model(server: Server) -> ChatOpenAI:
    made: dict[str, Any] = {"base_url": f"{server.url}/v1", "api_key": "any"}
    return ChatOpenAI(model=MODEL, temperature=0, max_completion_tokens=200, stream_usage=True, max_retries=0, **made)


@pytest.mark.parametrize("choice", ["any", "shout"])
def test_bound_tools_are_called_and_run(model: ChatOpenAI, choice: str) -> None:
    bound = model.bind_tools([multiply, shout], tool_choice=choice, parallel_tool_calls=False)
    asked = HumanMessage("Say hey.")
    message = bound.invoke([asked])
    assert isinstance(message, AIMessage)
    assert message.response_metadata["finish_reason"] == "tool_calls"
    assert (message.text, message.invalid_tool_calls) == ("", [])
    (call,) = message.tool_calls
    assert choice in ("any", call["name"])
    result = {"multiply": multiply, "shout": shout}[call["name"]].invoke(call)
    assert isinstance(result, ToolMessage)
    assert model.bind_tools([multiply, shout], tool_choice="none").invoke([asked, message, result]).text


def test_streamed_calls_add_up(model: ChatOpenAI) -> None:
    bound = model.bind_tools([multiply, shout], tool_choice="any", parallel_tool_calls=False)
    chunks = list(bound.stream("Say hey."))
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    whole: Any = bound.invoke("Say hey.")
    assert [(call["name"], call["args"]) for call in total.tool_calls] == [
        (call["name"], call["args"]) for call in whole.tool_calls
    ]
    assert total.response_metadata["finish_reason"] == "tool_calls"
    assert total.usage_metadata["output_tokens"] == whole.usage_metadata["output_tokens"]


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_structured_output_is_the_class(model: ChatOpenAI, method: Any) -> None:
    assert isinstance(model.with_structured_output(Person, method=method).invoke("Ann is 7 and happy."), Person)
    strict = model.with_structured_output(Person, method=method, strict=True)
    assert isinstance(strict.invoke("Bob is 70 and sad."), Person)


def test_json_mode_is_an_object(model: ChatOpenAI) -> None:
    answer = model.with_structured_output(None, method="json_mode").invoke(
        'Answer in JSON, like {"name": "Ann", "age": 7}: Bob is 70.'
    )
    assert isinstance(answer, dict)


@pytest.mark.parametrize("strategy", [ToolStrategy, ProviderStrategy])
def test_an_agent_answers_with_the_class(model: ChatOpenAI, strategy: Any) -> None:
    # A small model would go on calling, and two answers are none to the agent.
    settings = {"parallel_tool_calls": False} if strategy is ToolStrategy else {}
    agent = create_agent(model.model_copy(update={"model_kwargs": settings}), response_format=strategy(Person))
    state = agent.invoke({"messages": [HumanMessage("Ann is 7 and happy.")]})
    assert isinstance(state["structured_response"], Person)


def test_an_agent_goes_on_from_a_call_and_its_result(model: ChatOpenAI) -> None:
    """The first turn must call; then the model is free, and whatever it does has the right form."""
    bound = model.bind_tools([shout], tool_choice="shout", parallel_tool_calls=False)
    called = bound.invoke("Say hey.")
    assert isinstance(called, AIMessage)
    agent = create_agent(model, [shout])
    results = [shout.invoke(call) for call in called.tool_calls]
    state = agent.invoke({"messages": [HumanMessage("Say hey."), called, *results]}, {"recursion_limit": 12})
    assert state["messages"][-1].text or state["messages"][-1].tool_calls
    assert not any(message.invalid_tool_calls for message in state["messages"] if isinstance(message, AIMessage))
