"""Whether the messages of a conversation follow one another as templates and servers want them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ....serve.contract.errors import InvalidData
from ..sample import Conversation

Message = Mapping[str, Any]


def problems_of_order(sample: Conversation) -> Iterator[InvalidData]:
    """Roles out of order, results without calls, calls without results, empty answers, nothing to learn."""
    yield from _roles(sample)
    yield from _results(sample)
    for index, message in enumerate(sample.messages):
        if message["role"] == "assistant" and is_empty(message):
            mend = "write the answer, or leave the record out"
            yield problem(sample, f"messages[{index}].content", "the answer is empty", mend, "empty_answer")
        if message["role"] == "user" and is_empty(message):
            mend = "write the question, or leave the record out"
            yield problem(sample, f"messages[{index}].content", "the question is empty", mend, "empty_question")
    if sample.rejected and all(map(is_empty, sample.rejected)):
        yield problem(sample, "rejected", "the rejected answer is empty", "write it", "empty_answer")
    if not any(message["role"] == "assistant" and message.get("weight") != 0 for message in sample.messages):
        mend = "end with an answer whose weight is not 0"
        yield problem(sample, "messages", "there is no answer to learn", mend, "nothing_to_learn")


def is_empty(message: Message) -> bool:
    """Whether nothing is said and no tool is called."""
    content = message.get("content")
    if isinstance(content, Sequence) and not isinstance(content, str):
        content = "".join(part.get("text", "") for part in content)
    return not (content or "").strip() and not message.get("tool_calls")


def problem(sample: Conversation, field: str, what: str, mend: str, kind: str) -> InvalidData:
    """A problem of the sample, told by the fields of OpenAI's form, whatever form the file has."""
    return InvalidData(what, mend, file=sample.place.file, line=sample.place.line, field=field, kind=kind)


def _roles(sample: Conversation) -> Iterator[InvalidData]:
    before = ""
    for index, message in enumerate(sample.messages):
        role, field = message["role"], f"messages[{index}].role"
        if role in ("system", "developer"):
            if index:
                mend = "put it first, or into the message of a user"
                yield problem(sample, field, f"a {role} message stands inside the conversation", mend, "role_order")
        elif role == "user" and before == "user":
            yield problem(sample, field, "two messages of the user follow each other", "join them", "role_order")
        elif role == "assistant" and before == "assistant":
            yield problem(sample, field, "two answers follow each other", "join them", "role_order")
        elif role == "assistant" and before in ("", "system", "developer") and message.get("weight") != 0:
            mend = "begin with a question, or leave the first answer out"
            yield problem(sample, field, "the conversation begins with an answer", mend, "role_order")
        elif role == "user" and before == "tool":
            mend = "let the assistant answer first"
            yield problem(sample, field, "the user speaks where the assistant reads results", mend, "role_order")
        before = role
    if before in ("user", "tool"):
        what = f"the conversation ends with a message of the {before}, behind which nothing is learned"
        yield problem(sample, f"messages[{len(sample.messages) - 1}]", what, "end with an answer", "unlearned_end")


def _results(sample: Conversation) -> Iterator[InvalidData]:
    """Each result must follow its call, and each call have its result before anybody speaks again."""
    waiting: dict[str, str] = {}
    for index, message in enumerate(sample.messages):
        field = f"messages[{index}]"
        if message["role"] == "tool":
            id_ = message.get("tool_call_id")
            if id_ not in waiting:
                what = f"this result belongs to no call before it (tool_call_id {id_!r})"
                yield problem(sample, f"{field}.tool_call_id", what, "give it the id of a call", "tool_result")
            waiting.pop(str(id_), None)
            continue
        for id_, where in waiting.items():
            yield problem(sample, where, f"the call {id_!r} has no result", "add a tool message", "tool_result")
        waiting = {}
        for number, call in enumerate(message.get("tool_calls") or ()):
            if call["id"] in waiting:
                what = f"two calls have the id {call['id']!r}"
                yield problem(sample, f"{field}.tool_calls[{number}].id", what, "give each its own", "tool_result")
            waiting[call["id"]] = f"{field}.tool_calls[{number}]"
