"""Conformance probes: does a server answer as OpenAI clients, agents and frameworks rely on? Works on any server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..contract.errors import TunechatError
from .machine import Check
from .server import DONE, Server, chunk_of
from .stream_rules import FINISH_REASONS, stream_problems

Body = dict[str, Any]
_ASK = [{"role": "user", "content": "Say hello."}]
_TOOL = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "The time in a city.",
        # A model that was not trained to call does not know where to end.
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 40}},
            "required": ["city"],
        },
    },
}


class Broken(Exception):
    """A probe's answer breaks a rule; the message says which."""


class NotOffered(Exception):
    """The server says that it does not do this, in the way that clients understand."""


def probe_server(server: Server) -> Iterator[Check]:
    """The result of every probe, in order. The first one finds a model; without one there is nothing to ask."""
    try:
        listed = _models(server)
    except (Broken, TunechatError) as error:
        yield Check("models", "fail", str(error))
        return
    model = listed[0]["id"]
    yield Check("models", "ok", f"{len(listed)} listed; the probes ask {model}")
    probes: dict[str, Callable[[], str]] = {
        "chat": lambda: _chat(server, model),
        "stream": lambda: _stream(server, model, usage=False),
        "stream with usage": lambda: _stream(server, model, usage=True),
        "unknown fields": lambda: _unknown_fields(server, model),
        "max_completion_tokens": lambda: _max_completion_tokens(server, model),
        "unknown model": lambda: _unknown_model(server),
        "no truncation": lambda: _no_truncation(server, model, listed[0]),
        "completions": lambda: _completions(server, model),
        "tool calls": lambda: _tools(server, model),
        "responses": lambda: _offered(server, "/v1/responses", {"model": model, "input": "Say hello."}),
        "count_tokens": lambda: _offered(server, "/v1/messages/count_tokens", {"model": model, "messages": _ASK}),
    }
    for name, probe in probes.items():
        try:
            yield Check(name, "ok", probe())
        except NotOffered as reason:
            yield Check(name, "skip", str(reason))
        except (Broken, TunechatError) as error:
            yield Check(name, "fail", str(error))


def _need(condition: bool, message: str) -> None:
    if not condition:
        raise Broken(message)


def _json(server: Server, method: str, path: str, body: Body | None = None) -> tuple[int, Body]:
    response = server.send(method, path, body)
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise Broken(f"{path} answered {response.status_code} with a body that is no JSON object")
    return response.status_code, answer


def _refusal(answer: Body) -> Body:
    """The error of an answer, in the shape that OpenAI's clients read."""
    error = answer.get("error")
    if not isinstance(error, dict) or not {"message", "type", "param", "code"} <= error.keys():
        raise Broken("an error is not {error: {message, type, param, code}}")
    return error


def _models(server: Server) -> list[Body]:
    status, answer = _json(server, "GET", "/v1/models")
    if status in (401, 403):
        raise Broken(f"the key was refused: {_refusal(answer)['message']}")
    data = answer.get("data")
    _need(status == 200 and isinstance(data, list) and bool(data), "GET /v1/models lists no model")
    for model in data or ():
        _need(isinstance(model, dict) and model.get("object") == "model", "a listed model is no model object")
        _need(isinstance(model.get("id"), str), "a listed model has no id")
    return list(data or ())


def _chat(server: Server, model: str, **fields: Any) -> str:
    status, answer = _json(
        server, "POST", "/v1/chat/completions", {"model": model, "messages": _ASK, "max_tokens": 8, **fields}
    )
    if status != 200:
        raise Broken(f"answered {status}: {_refusal(answer)['message']}")
    _need(answer.get("object") == "chat.completion", "object is not chat.completion")
    choices = answer.get("choices")
    if not isinstance(choices, list) or len(choices) != 1:
        raise Broken("there is not one choice")
    message = choices[0].get("message") or {}
    _need(message.get("role") == "assistant" and isinstance(message.get("content"), str), "the message has no text")
    _need(choices[0].get("finish_reason") in FINISH_REASONS, "finish_reason is none that clients know")
    usage = answer.get("usage") or {}
    _need(
        usage.get("total_tokens") == usage.get("prompt_tokens", 0) + usage.get("completion_tokens", -1),
        "usage does not add up",
    )
    return f"finish_reason {choices[0]['finish_reason']}, {usage['completion_tokens']} tokens"


def _stream(server: Server, model: str, *, usage: bool, **fields: Any) -> str:
    body: Body = {"model": model, "messages": _ASK, "max_tokens": 8, "stream": True, **fields}
    if usage:
        body["stream_options"] = {"include_usage": True}
    received = list(server.stream("/v1/chat/completions", body))
    chunks = [chunk_of(data) for data in received if data != DONE]
    done = bool(received) and received[-1] == DONE and received.count(DONE) == 1
    problems = stream_problems(chunks, done=done, usage_asked=usage)
    if problems:
        raise Broken("; ".join(problems))
    return f"{len(chunks)} chunks in the order that clients expect"


def _unknown_fields(server: Server, model: str) -> str:
    _chat(server, model, a_field_that_no_server_knows={"nested": [1]})
    return "ignored"


def _max_completion_tokens(server: Server, model: str) -> str:
    body = {"model": model, "messages": _ASK, "max_completion_tokens": 1}
    status, answer = _json(server, "POST", "/v1/chat/completions", body)
    _need(status == 200, f"answered {status}")
    reason, count = answer["choices"][0]["finish_reason"], answer["usage"]["completion_tokens"]
    _need(count == 1 and reason in {"length", "stop"}, f"{count} tokens instead of 1, finish_reason {reason}")
    return "honoured"


def _unknown_model(server: Server) -> str:
    body = {"model": "no-such-model-anywhere", "messages": _ASK, "max_tokens": 1}
    status, answer = _json(server, "POST", "/v1/chat/completions", body)
    _need(status == 404, f"answered {status} instead of 404")
    return f"404, code {_refusal(answer)['code']}"


def _no_truncation(server: Server, model: str, listed: Body) -> str:
    limit = listed.get("max_model_len")
    words = limit + 64 if type(limit) is int and 0 < limit <= 1 << 17 else 150_000
    body = {"model": model, "messages": [{"role": "user", "content": "word " * words}], "max_tokens": 1}
    status, answer = _json(server, "POST", "/v1/chat/completions", body)
    if status == 200:
        seen = (answer.get("usage") or {}).get("prompt_tokens", 0)
        _need(seen >= words, f"a prompt of {words} words was cut to {seen} tokens without an error")
        return f"{seen} tokens taken whole"
    error = _refusal(answer)
    _need(status in (400, 413), f"answered {status} instead of 400")
    return f"{status}, code {error['code']}"


def _completions(server: Server, model: str) -> str:
    status, answer = _json(server, "POST", "/v1/completions", {"model": model, "prompt": "Once", "max_tokens": 4})
    if status in (404, 405):
        raise Broken("missing, and some clients use nothing else")
    _need(status == 200, f"answered {status}")
    choice = (answer.get("choices") or [{}])[0]
    _need(
        answer.get("object") == "text_completion" and isinstance(choice.get("text"), str), "no text_completion object"
    )
    return "answered"


def _tools(server: Server, model: str) -> str:
    fields: Body = {"tools": [_TOOL], "tool_choice": "required", "max_tokens": 256, "temperature": 0}
    status, answer = _json(server, "POST", "/v1/chat/completions", {"model": model, "messages": _ASK, **fields})
    if status == 400:
        raise NotOffered(f"refused by name: {_refusal(answer)['message']}")
    _need(status == 200, f"answered {status}")
    choice = (answer.get("choices") or [{}])[0]
    calls = (choice.get("message") or {}).get("tool_calls")
    _need(bool(calls) and choice.get("finish_reason") == "tool_calls", "the tools were ignored")
    return _stream(server, model, usage=False, **fields)


def _offered(server: Server, path: str, body: Body) -> str:
    response = server.send("POST", path, body)
    if response.status_code in (404, 405, 501):
        raise NotOffered("this server does not have it")
    _need(response.status_code == 200, f"answered {response.status_code}")
    return "answered"
