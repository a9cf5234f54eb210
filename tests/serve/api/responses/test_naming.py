"""Chat's fields in the words of Responses."""

from __future__ import annotations

import pytest

from tunechat.serve.api.responses.naming import Places
from tunechat.serve.contract.errors import InvalidRequest

PLACES = Places(
    ["instructions", "previous_response_id", "input[0]", "input[1]"],
    [[], ["previous_response_id"], [], ["input[1]", "input[2]"]],
    ["tools[1]", "tools[2].tools[0]"],
)


@pytest.mark.parametrize(
    ("chat", "own"),
    [
        ("messages", "input"),
        ("messages[0].content", "instructions"),
        ("messages[1].tool_calls[0].function", "previous_response_id"),
        ("messages[2].content", "input[0].content"),
        ("messages[3].tool_calls[1].function", "input[2].arguments"),
        ("messages[3].tool_calls[1].function.name", "input[2].name"),
        ("messages[9].role", "input"),
        ("max_completion_tokens", "max_output_tokens"),
        ("logprobs", "include"),
        ("top_logprobs", "top_logprobs"),
        ("tools", "tools"),
        ("tools[0].function.parameters.properties.a", "tools[1].parameters.properties.a"),
        ("tools[1].name", "tools[2].tools[0].name"),
        ("tools[7].function", "tools[7].function"),
        ("tool_choice", "tool_choice"),
        ("tool_choice.function.name", "tool_choice.name"),
        ("tool_choice.allowed_tools.tools[1].function.name", "tool_choice.tools[1].name"),
        ("response_format", "text.format"),
        ("response_format.json_schema.schema.a", "text.format.schema.a"),
        ("temperature", "temperature"),
        ("structured_outputs.json", "structured_outputs.json"),
    ],
)
def test_fields(chat: str, own: str) -> None:
    with pytest.raises(InvalidRequest) as refused, PLACES.named():
        raise InvalidRequest("No.", param=chat)
    assert refused.value.param == own


def test_an_error_about_no_field_stays_one() -> None:
    with pytest.raises(InvalidRequest) as refused, PLACES.named():
        raise InvalidRequest("No.")
    assert refused.value.param is None
