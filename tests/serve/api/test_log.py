"""Logs are JSON, carry what operators need, and none of what users say."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from tunechat.serve.api.log import _QUIET, configure_logging
from tunechat.serve.contract.errors import EngineFailed
from tunechat.tests.serve.api.conftest import Serve
from tunechat.tests.serve.api.harness import chat, completion

KEY = "canary-key-5f3a"
PROMPT = "canary-prompt-77"
ANSWER = "canary-answer-99"


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    """Logs at DEBUG, everything; the loggers are put back."""
    names = ["tunechat", *_QUIET]
    kept = [(logging.getLogger(n), list(logging.getLogger(n).handlers), logging.getLogger(n).level) for n in names]
    propagating = [logger.propagate for logger, _, _ in kept]
    stream = io.StringIO()
    configure_logging("debug", stream)
    yield stream
    for (logger, handlers, level), propagate in zip(kept, propagating, strict=True):
        logger.handlers, logger.level, logger.propagate = handlers, level, propagate


def lines_of(output: io.StringIO) -> list[Any]:
    return [json.loads(line) for line in output.getvalue().splitlines()]


async def test_a_request_is_one_line_with_its_numbers(serve: Serve, output: io.StringIO) -> None:
    served = await serve({"cached_tokens": 1})
    response = await served.client.post("/v1/chat/completions", json=chat())
    (line,) = [line for line in lines_of(output) if line["message"] == "request"]
    assert line["request_id"] == response.headers["x-request-id"]
    assert (line["method"], line["route"], line["status"]) == ("POST", "/v1/chat/completions", 200)
    assert (line["completion_tokens"], line["cached_tokens"]) == (13, 1)
    assert line["prompt_tokens"] > 0
    assert line["seconds"] >= line["first_token_seconds"] >= 0
    assert line["level"] == "info"


async def test_what_machines_poll_is_logged_for_those_who_look(serve: Serve, output: io.StringIO) -> None:
    served = await serve()
    for path in ("/livez", "/readyz", "/metrics"):
        await served.client.get(path)
    assert [line["level"] for line in lines_of(output) if line["message"] == "request"] == ["debug"] * 3


async def test_no_canary_sings(serve: Serve, output: io.StringIO) -> None:
    faulty: list[dict[str, Any]] = [{}, {"faults": {3: RuntimeError(PROMPT)}}, {"faults": {3: EngineFailed("dead")}}]
    for engine in faulty:
        served = await serve({"answer": ANSWER} | engine, api_keys=(KEY,), headers={"authorization": f"Bearer {KEY}"})
        for stream in (False, True):
            for path, body in (("chat/completions", chat(PROMPT)), ("completions", completion(PROMPT))):
                await served.client.post(
                    f"/v1/{path}", json=body | {"stream": stream, "user": PROMPT, "stop": [PROMPT]}
                )
        await served.client.post("/v1/chat/completions", json=chat(PROMPT, n=PROMPT))
        await served.client.post("/v1/chat/completions", content=PROMPT)
        await served.client.post("/tokenize", json={"prompt": PROMPT})
        await served.client.get(f"/v1/models/{PROMPT}?q={PROMPT}")
        await served.client.get(f"/{PROMPT}")
        await served.client.get("/v1/models", headers={"authorization": "Bearer canary-key-wrong"})
        metrics = (await served.client.get("/metrics")).text
        assert "canary" not in metrics
    text = output.getvalue()
    assert text.count('"message": "request"') > 20
    assert "canary" not in text
    assert "Bearer" not in text


async def test_an_unexpected_error_is_logged_with_its_place(
    serve: Serve, output: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = await serve()

    def broken(*_: object) -> None:
        raise ZeroDivisionError(PROMPT)

    monkeypatch.setattr(served.gateway, "check_model", broken)
    response = await served.client.get("/v1/models/x")
    (line,) = [line for line in lines_of(output) if line["level"] == "error"]
    assert line["exception"] == "ZeroDivisionError"
    assert line["request_id"] == response.headers["x-request-id"]
    assert any("models.py" in frame for frame in line["where"])


def test_libraries_that_print_bodies_are_quiet(output: io.StringIO) -> None:
    for name in ("sse_starlette.sse", "uvicorn.error", "uvicorn.access", "asyncio"):
        logging.getLogger(name).info("canary")
        logging.getLogger(name).debug("canary")
    assert output.getvalue() == ""
    logging.getLogger("uvicorn.error").warning("careful")
    assert [line["message"] for line in lines_of(output)] == ["careful"]
