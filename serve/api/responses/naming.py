"""Errors of a chat told in the words of Responses: the field that the caller wrote, not the one it was made into."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...contract.errors import TunechatError

_MESSAGE = re.compile(r"messages\[(\d+)\](?:\.tool_calls\[(\d+)\])?(.*)")
_TOOL = re.compile(r"tools\[(\d+)\](?:\.function)?(.*)")
_CHOICE = re.compile(r"tool_choice(?:\.allowed_tools)?(.*)")
_FORMAT = re.compile(r"response_format(?:\.json_schema)?(.*)")
_SIMPLE = {
    "messages": "input",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "logprobs": "include",
}


@dataclass(frozen=True, slots=True)
class Places:
    """The places in a request that its chat's messages, their calls and its tools were made from."""

    messages: Sequence[str] = ()
    calls: Sequence[Sequence[str]] = ()
    tools: Sequence[str] = ()

    @contextlib.contextmanager
    def named(self) -> Iterator[None]:
        """Within it, errors name the fields of Responses."""
        try:
            yield
        except TunechatError as error:
            if error.param is not None:
                error.param = self.of(error.param)
            raise

    def of(self, param: str) -> str:
        """The field of Responses that chat's `param` was made from."""
        if param in _SIMPLE:
            return _SIMPLE[param]
        if match := _MESSAGE.fullmatch(param):
            return _of_message(int(match[1]), match[2], match[3], self.messages, self.calls)
        if (match := _TOOL.fullmatch(param)) and int(match[1]) < len(self.tools):
            return self.tools[int(match[1])] + match[2]
        if match := _CHOICE.fullmatch(param):
            return "tool_choice" + match[1].replace(".function", "")
        if match := _FORMAT.fullmatch(param):
            return "text.format" + match[1]
        return param


def _of_message(
    index: int, call: str | None, rest: str, messages: Sequence[str], calls: Sequence[Sequence[str]]
) -> str:
    if index >= len(messages):
        return "input"
    if call is not None and int(call) < len(calls[index]):
        path, rest = calls[index][int(call)], rest.replace(".function", "") or ".arguments"
    else:
        path = messages[index]
    # A whole field, or another response's item: there is nothing further down that the caller wrote.
    return path + rest if path.startswith("input[") else path
