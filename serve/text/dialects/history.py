"""Earlier turns of a chat, with their calls and results, as templates take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...contract.errors import InvalidRequest
from ..chat import flatten_parts
from ..markup import Markup, Own
from .family import Message, Messages
from .form import Form
from .tool import Call


def with_argument_objects(messages: Sequence[Message]) -> Messages:
    """The messages with the arguments of calls as objects, which templates that know calls expect."""
    result: Messages = []
    for index, message in enumerate(messages):
        copy = dict(message)
        if message.get("tool_calls"):
            copy["tool_calls"] = [
                {**tool_call, "function": {**tool_call["function"], "name": call.name, "arguments": call.value()}}
                for tool_call, call in zip(message["tool_calls"], read_calls(message, index), strict=True)
            ]
        result.append(copy)
    return result


def read_calls(message: Message, index: int) -> list[Call]:
    """The calls of message number `index`. Raises InvalidRequest, with the path, for one that is no call."""
    calls = []
    for number, item in enumerate(message.get("tool_calls") or ()):
        path = f"messages[{index}].tool_calls[{number}].function"
        function = item.get("function") if isinstance(item, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise InvalidRequest("A call must have a function with a name.", param=path)
        arguments = function.get("arguments")
        if isinstance(arguments, Mapping):
            call = Call.of(function["name"], arguments)
        else:
            call = Call(function["name"], arguments if isinstance(arguments, str) else "")
        try:
            call.value()
        except ValueError as error:
            raise InvalidRequest("The arguments of a call must be the JSON text of an object.", param=path) from error
        calls.append(call)
    return calls


def as_plain_turns(messages: Sequence[Message], form: Form, result: tuple[str, str]) -> Messages:
    """The messages with calls and results written into the content, for templates that know only users and assistants.

    A call is written as the model would write it. Results that follow one another become one message of the user,
    together with what the user says next, each between the two texts of `result`: roles must alternate.
    """
    turns: Messages = []
    names: dict[str, str] = {}
    was_result = False
    for index, message in enumerate(messages):
        copy = flatten_parts(dict(message))
        is_result = message.get("role") in ("tool", "function")
        if message.get("tool_calls"):
            calls = read_calls(message, index)
            ids = [str(item.get("id")) for item in message["tool_calls"]]
            names.update(zip(ids, (call.name for call in calls), strict=True))
            copy["content"] = written(form, _text(copy), calls)
            del copy["tool_calls"]
        elif is_result:
            name = message.get("name") or names.get(str(message.get("tool_call_id")), "")
            label = f"{name}: " if name else ""
            content = Markup(Own(result[0]), label, _text(copy), Own(result[1]))
            if was_result:
                turns[-1]["content"] = Markup(turns[-1]["content"], Own("\n"), content)
                continue
            copy = {"role": "user", "content": content}
        elif was_result and message.get("role") == "user" and isinstance(copy.get("content"), str):
            turns[-1]["content"] = Markup(turns[-1]["content"], Own("\n\n"), copy["content"])
            was_result = False
            continue
        was_result = is_result
        turns.append(copy)
    return turns


def written(form: Form, text: str, calls: Sequence[Call]) -> Markup:
    """A turn as the form writes it, in which only the markers of the form can be control tokens."""
    pieces: list[str] = []
    rest = form.render(text, calls)
    inside = [text] if text else []
    inside += [part for call in calls for part in (form.spelled(call.name), call.canonical()) if part]
    for part in inside:
        before, _, rest = rest.partition(part)
        pieces += [Own(before), part]
    return Markup(*pieces, Own(rest))


def in_system(messages: Messages, text: str, *, system_role: bool) -> Messages:
    """The messages with `text` at the end of the system message, or at the beginning of the first where none can be."""
    first = messages[0] if messages else {}
    if first.get("role") in ("system", "developer"):
        content = Markup(_text(first), "\n\n", text)
        if system_role:
            return [{**first, "content": content}, *messages[1:]]
        return in_system(messages[1:], content, system_role=False)
    if system_role or not messages:
        return [{"role": "system", "content": text}, *messages]
    return [{**first, "content": Markup(text, "\n\n", _text(first))}, *messages[1:]]


def _text(message: Message) -> str:
    content = message.get("content")
    if content is None:
        return ""
    if not isinstance(content, str):
        raise InvalidRequest("The content of a message must be text here.", param="messages")
    return content
