"""Tools and choices of Responses as chat has them."""

from __future__ import annotations

import pytest

from tunechat.serve.api.responses.tools import chat_choice, flat_name, read_offer
from tunechat.serve.contract.errors import Unsupported
from tunechat.serve.text.dialects import read_tools

FUNCTION = {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
SPACE = {"type": "namespace", "name": "mcp__docs", "description": "Docs.", "tools": [FUNCTION]}
HOSTED = [{"type": "web_search", "external_web_access": True}, {"type": "image_generation"}, {"type": "tool_search"}]


def test_functions_are_nested_for_chat_and_told_flat() -> None:
    offer = read_offer([FUNCTION, {"type": "function", "name": "g"}])
    assert offer.chat[0] == {"type": "function", "function": {key: FUNCTION[key] for key in FUNCTION if key != "type"}}
    assert offer.told[0] == FUNCTION
    assert offer.told[1] == {
        "type": "function",
        "name": "g",
        "description": None,
        "parameters": None,
        "strict": False,
    }
    assert [tool.name for tool in read_tools(offer.chat)] == ["f", "g"]


def test_functions_in_namespaces_have_names_of_both() -> None:
    offer = read_offer([FUNCTION, SPACE])
    assert [tool["function"]["name"] for tool in offer.chat] == ["f", "mcp__docs__f"]
    assert offer.spaces == {"mcp__docs__f": ("mcp__docs", "f")}
    assert offer.paths == ["tools[0]", "tools[1].tools[0]"]
    assert offer.told[1] == SPACE


def test_long_names_stay_different_and_allowed() -> None:
    names = {flat_name("n" * 60, f"tool_{number}") for number in range(10)}
    assert len(names) == 10
    assert {len(name) for name in names} == {64}
    assert flat_name("mcp__x__", "y") == "mcp__x__y"
    assert flat_name(None, "y") == flat_name("", "y") == "y"


def test_what_its_client_does_without_is_left_out() -> None:
    offer = read_offer([{"type": "web_search", "external_web_access": False}, FUNCTION])
    assert (offer.told, offer.paths) == ([FUNCTION], ["tools[1]"])
    assert read_offer([*HOSTED, FUNCTION], is_codex=True).told == [FUNCTION]


@pytest.mark.parametrize("tool", [*HOSTED, {"type": "mcp"}, {"type": "custom"}, {"type": 1}, {}], ids=str)
def test_other_tools_are_refused(tool: dict[str, object]) -> None:
    with pytest.raises(Unsupported) as refused:
        read_offer([FUNCTION, tool])
    assert refused.value.param == "tools[1].type"


@pytest.mark.parametrize("tool", [{"type": "custom", "name": "patch"}, {"type": "code_interpreter"}], ids=str)
def test_codex_is_refused_what_it_does_not_send_by_itself(tool: dict[str, object]) -> None:
    with pytest.raises(Unsupported):
        read_offer([tool], is_codex=True)


def test_choices() -> None:
    assert chat_choice("required") == "required"
    assert chat_choice({"type": "function", "name": "f"}) == {"type": "function", "function": {"name": "f"}}
    spaced = chat_choice({"type": "function", "name": "f", "namespace": "n"})
    assert spaced["function"]["name"] == "n__f"
    tools = [{"type": "function", "name": "f"}, {"type": "tunechat", "name": "calculate"}]
    assert chat_choice({"type": "allowed_tools", "mode": "auto", "tools": tools}) == {
        "type": "allowed_tools",
        "allowed_tools": {
            "mode": "auto",
            "tools": [{"type": "function", "function": {"name": "f"}}, {"type": "tunechat", "name": "calculate"}],
        },
    }
